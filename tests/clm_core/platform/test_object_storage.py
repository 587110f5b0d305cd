"""Series in a bucket: boto3 against moto inside the process."""

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from botocore.exceptions import NoCredentialsError
from moto import mock_aws

from clm_core.domain.errors import (
    ConflictError,
    MissingExtra,
    RegistryUnavailable,
    SettingsError,
    StorageUnavailable,
    StoreCorrupt,
)
from clm_core.domain.storage_settings import StorageSettings
from clm_core.market.sources import MarketData
from clm_core.market.storage import FolderStorage, SeriesEdit, SeriesStorage, StoredFolder
from clm_core.market.store import SeriesStore
from clm_core.operations.settings_check import require_usable
from clm_core.operations.uploading import _Upload
from clm_core.platform.bucket import PROBE, Bucket, variables_of_mlflow
from clm_core.platform.object_storage import FileCache, ObjectStorage, market_data, object_storage
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.pruning import Pruning
from clm_core.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = StorageSettings(
    url="s3://bars/clm", access_key="key", secret_key="secret", region="eu-central-1", cache_mib=1
)
HOURS = MarketData(Path("nothing stored")).bars("EURUSD", "1h", closed_by=NOW)[-400:]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with mock_aws():
        made = Bucket(SETTINGS)
        made.client.create_bucket(
            Bucket="bars", CreateBucketConfiguration={"LocationConstraint": SETTINGS.region}
        )
        yield made


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> SeriesStorage:
    if request.param == "folder":
        return FolderStorage(tmp_path).below("data")
    bucket = request.getfixturevalue("bucket")
    return ObjectStorage(bucket, FileCache(tmp_path, 2**20)).below("data")


def put(storage: SeriesStorage, folder: str, manifest: bytes, **files: bytes) -> None:
    storage.change(folder, lambda present: (None, SeriesEdit(manifest, files)))


def other_machine(tmp_path: Path) -> SeriesStore:
    return SeriesStore(object_storage(tmp_path / "other home", SETTINGS).below("data"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_folder_is_listed_once_it_has_a_manifest(storage):
    put(storage, "B/1h", b"1", file=b"x")
    put(storage, "A/1d", b"2")
    put(storage, "A/1h", b"3")
    assert storage.folders() == ["A/1d", "A/1h", "B/1h"]
    assert storage.folders(within="A") == ["A/1d", "A/1h"]
    assert storage.folders(within="nothing") == []
    assert storage.manifests() == [("A/1d", b"2"), ("A/1h", b"3"), ("B/1h", b"1")]


def test_an_edit_sees_the_manifest_in_force_and_its_answer_is_returned(storage):
    put(storage, "A/1h", b"1")
    answer = storage.change("A/1h", lambda present: (present.manifest, SeriesEdit(b"2")))
    assert (answer, storage.manifest("A/1h"), storage.manifest("B/1h")) == (b"1", b"2", None)


def test_an_edit_without_a_manifest_writes_nothing(storage):
    assert storage.change("A/1h", lambda present: ("seen", SeriesEdit(None, {"file": b"x"}))) == "seen"
    assert (storage.manifest("A/1h"), storage.holds("A/1h", "file")) == (None, False)


def test_a_file_is_read_by_its_digest_alone(storage):
    put(storage, "A/1h", b"1", file=b"content")
    assert storage.read("A/1h", "file", sha256(b"content"), "damaged") == b"content"
    with pytest.raises(StoreCorrupt, match="damaged"):
        storage.read("A/1h", "file", sha256(b"other"), "damaged")
    with pytest.raises(StoreCorrupt, match="damaged"):
        storage.read("A/1h", "absent", sha256(b"absent"), "damaged")


def test_a_failing_edit_changes_nothing(storage):
    put(storage, "A/1h", b"1")
    with pytest.raises(ZeroDivisionError):
        storage.change("A/1h", lambda present: (1 / 0, SeriesEdit(b"2")))
    assert storage.manifest("A/1h") == b"1"


def test_a_change_of_another_machine_in_between_is_not_lost(bucket, tmp_path):
    storage = ObjectStorage(bucket, FileCache(tmp_path, 0))
    seen = []

    def append(present: StoredFolder) -> tuple[None, SeriesEdit]:
        seen.append(present.manifest)
        if len(seen) == 1:
            put(storage, "A/1h", b"theirs")
        return None, SeriesEdit((present.manifest or b"") + b" ours")

    storage.change("A/1h", append)
    assert seen == [None, b"theirs"]
    assert storage.manifest("A/1h") == b"theirs ours"


def test_a_change_that_never_comes_first_is_an_error(bucket, tmp_path):
    storage = ObjectStorage(bucket, FileCache(tmp_path, 0))
    rounds = []

    def late(present: StoredFolder) -> tuple[None, SeriesEdit]:
        rounds.append(1)
        bucket.client.put_object(Bucket="bars", Key="clm/A/1h/manifest.json", Body=b"%d" % len(rounds))
        return None, SeriesEdit(b"ours")

    with pytest.raises(ConflictError, match="run the command again"):
        storage.change("A/1h", late)
    assert bucket.get("A/1h/manifest.json").content == b"50"


def test_a_lost_answer_to_a_write_is_no_conflict(bucket, tmp_path, monkeypatch):
    storage = ObjectStorage(bucket, FileCache(tmp_path, 0))
    bucket.require_conditions()
    put_once = Bucket.put

    def put_twice(self, key, content, *, over):
        # as boto3 does after a lost answer
        put_once(self, key, content, over=over)
        return put_once(self, key, content, over=over)

    monkeypatch.setattr(Bucket, "put", put_twice)
    edits = []
    storage.change("A/1h", lambda present: (edits.append(1), SeriesEdit(b"1", {"file": b"x"})))
    assert (edits, storage.manifest("A/1h")) == ([1], b"1")


def test_the_bars_of_one_machine_are_read_on_another(bucket, tmp_path):
    here = SeriesStore(object_storage(tmp_path, SETTINGS).below("data"))
    here.add(HOURS[:300], "a file", NOW)
    there = other_machine(tmp_path)
    there.add(HOURS[300:], "another", NOW)
    [manifest] = here.manifests()
    assert here.read(manifest).content_hash == HOURS.content_hash
    assert there.read(manifest, HOURS[:300].content_hash).content_hash == HOURS[:300].content_hash


def test_every_series_of_a_home_lies_in_the_bucket(bucket, tmp_path):
    market = market_data(tmp_path, SETTINGS)
    funding = tmp_path / "funding.csv"
    funding.write_text("time,rate\n2025-01-01T00:00:00Z,0.0001\n")
    from clm_core.market.carry_store import PaymentKind
    from clm_core.market.series import KnownSeries

    market.payments.add(PaymentKind.FUNDING, funding, "BTCUSDT.P", now=NOW)
    time = np.arange(3, dtype=np.int64)
    market.own_series.add(KnownSeries.of("fear", time, time, np.arange(3.0), None), None, "a file", NOW)
    again = market_data(tmp_path / "other", SETTINGS)
    assert again.carry("BTCUSDT.P").funding is not None
    assert again.newest_series(["fear"], "BTCUSD") == market.newest_series(["fear"], "BTCUSD")
    assert {each.key.split("/")[0] for each in bucket.objects("")} == {"carry", "series", PROBE}
    assert not (tmp_path / "carry").exists()


def test_a_snapshot_is_fetched_once_and_compared_with_its_digest_at_every_reading(bucket, tmp_path):
    SeriesStore(object_storage(tmp_path, SETTINGS).below("data")).add(HOURS, "a file", NOW)
    there = other_machine(tmp_path)
    [manifest] = there.manifests()
    there.read(manifest)
    key = f"clm/data/EURUSD/1h/{HOURS.content_hash}.parquet"
    bucket.client.put_object(Bucket="bars", Key=key, Body=b"changed")
    assert there.read(manifest).content_hash == HOURS.content_hash
    [copy] = (tmp_path / "other home" / "cache" / "storage").iterdir()
    copy.write_bytes(b"changed as well")
    with pytest.raises(StoreCorrupt, match=f"s3://bars/{key} is missing or damaged"):
        there.read(manifest)


def test_a_file_without_a_manifest_is_not_taken_for_a_snapshot_but_used_if_whole(bucket, tmp_path):
    store = SeriesStore(object_storage(tmp_path, SETTINGS).below("data"))
    store.add(HOURS, "a file", NOW)
    bucket.delete(["data/EURUSD/1h/manifest.json"])
    assert store.manifests() == []
    # written by another release, in another encoding
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clm_core.market.arrow_files import read_parquet

    key = f"data/EURUSD/1h/{HOURS.content_hash}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(read_parquet(bucket.get(key).content), sink, compression="none")
    bucket.client.put_object(Bucket="bars", Key=f"clm/{key}", Body=sink.getvalue().to_pybytes())
    manifest = store.add(HOURS, "a file", NOW)
    assert manifest.snapshots[-1].file_sha256 == sha256(bucket.get(key).content)
    assert other_machine(tmp_path).read(manifest).content_hash == HOURS.content_hash


def test_a_damaged_file_without_a_manifest_is_replaced(bucket, tmp_path):
    key = f"clm/data/EURUSD/1h/{HOURS.content_hash}.parquet"
    bucket.client.put_object(Bucket="bars", Key=key, Body=b"half")
    manifest = SeriesStore(object_storage(tmp_path, SETTINGS).below("data")).add(HOURS, "a file", NOW)
    assert other_machine(tmp_path).read(manifest).content_hash == HOURS.content_hash


def test_the_copies_used_longest_ago_go_first(tmp_path):
    cache = FileCache(tmp_path, 250)
    first, second, third = (bytes([number]) * 100 for number in range(3))
    cache.add(first)
    cache.add(second)
    os.utime(tmp_path / sha256(second), (1, 1))
    assert cache.read(sha256(first)) == first
    cache.add(third)
    assert [cache.read(sha256(each)) for each in (first, second, third)] == [first, None, third]
    cache.add(bytes(300))
    assert cache.read(sha256(bytes(300))) is None


def test_a_server_that_ignores_conditions_is_refused_before_the_first_write(bucket, tmp_path, monkeypatch):
    request = bucket.client.put_object

    def without_conditions(**options):
        return request(**{name: value for name, value in options.items() if not name.startswith("If")})

    monkeypatch.setattr(bucket.client, "put_object", without_conditions)
    with pytest.raises(StorageUnavailable, match="ignores conditions"):
        put(ObjectStorage(bucket, FileCache(tmp_path, 0)), "A/1h", b"1")
    assert [each.key for each in bucket.objects("")] == [PROBE]


def test_a_missing_bucket_is_named_with_what_to_do(bucket):
    elsewhere = SETTINGS.model_copy(update={"url": "s3://nowhere"})
    with pytest.raises(StorageUnavailable, match=r"there is no bucket nowhere .*: make it, or correct"):
        Bucket(elsewhere).require_reachable()


def test_a_silent_server_is_named():
    silent = SETTINGS.model_copy(update={"endpoint": "http://127.0.0.1:9", "timeout_seconds": 1.0})
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9 does not answer .*Check \[storage\]"):
        Bucket.probed(silent).require_reachable()


def test_the_check_of_the_settings_names_what_is_wrong_with_the_storage(bucket, tmp_path):
    settings = Settings(home=tmp_path, storage=SETTINGS)
    require_usable(settings)
    assert [each.key for each in bucket.objects("")] == [PROBE]
    wrong = replace_url(settings, "s3://nowhere")
    with pytest.raises(SettingsError, match="there is no bucket nowhere"):
        require_usable(wrong)


def replace_url(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"storage": SETTINGS.model_copy(update={"url": url})})


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"continuous-learning-manager\[s3\]"):
        Bucket(SETTINGS).require_reachable()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "bars"}, "must look like s3://bucket"),
        ({"url": "s3://bars/../x"}, "must look like s3://bucket"),
        ({"url": "s3://bars", "endpoint": "host:9000"}, "must look like https://host"),
        ({"url": "s3://bars", "endpoint": "https://me:secret@host"}, "must not hold a password"),
        ({"url": "s3://bars", "access_key": "key"}, "belong together"),
        ({"endpoint": "https://host"}, "no effect without url"),
    ],
)
def test_a_faulty_setting_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        StorageSettings(**values)


def test_keys_from_the_server_of_secrets_are_taken_anew(bucket):
    class Changing:
        value = "first"

        def read(self, path: str, key: str) -> str:
            return f"{self.value} {key}"

    server = Changing()
    settings = StorageSettings(
        url="s3://bars", access_key="vault://kv/s3#access", secret_key="vault://kv/s3#secret"
    )
    for key in (settings.access_key, settings.secret_key):
        key.bind(server, "storage")
    own = Bucket(settings)
    before = own.client
    assert own.client is before
    server.value = "second"
    assert own.client is not before
    assert own.client._request_signer._credentials.access_key == "second access"


def test_programs_of_clm_exec_get_the_variables_of_mlflows_own_client(tmp_path):
    settings = SETTINGS.model_copy(update={"endpoint": "https://s3.example.org", "ca": tmp_path / "ca.pem"})
    assert variables_of_mlflow(settings) == {
        "MLFLOW_S3_ENDPOINT_URL": "https://s3.example.org",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": str(tmp_path / "ca.pem"),
    }
    assert variables_of_mlflow(StorageSettings(url="s3://bars")) == {}
    assert variables_of_mlflow(StorageSettings()) == {}


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (NoCredentialsError(), RegistryUnavailable, "MLflow could not read it: Unable to locate credentials"),
        (ModuleNotFoundError(name="boto3"), MissingExtra, r"continuous-learning-manager\[s3\]"),
    ],
)
def test_errors_of_a_location_that_no_setting_names_are_told(tmp_path, error, raised, message):
    registry = MLflowRegistry("sqlite://", tmp_path)
    with pytest.raises(raised, match=message), registry.requests("read it"):
        raise error


def test_pruning_removes_the_objects_of_one_version_alone(bucket):
    for key in ("1/m-1/artifacts/MLmodel", "1/m-1/artifacts/artifacts/x", "1/m-10/artifacts/MLmodel"):
        bucket.put(f"artifacts/{key}", b"12345", over=None)
    pruning = Pruning(Path("nowhere"), None, None, SETTINGS)
    files = pruning._own_files(f"{SETTINGS.url}/artifacts/1/m-1/artifacts")
    assert files.sizes() == [5, 5]
    files.remove()
    assert [each.key for each in bucket.objects("artifacts/")] == ["artifacts/1/m-10/artifacts/MLmodel"]
    for elsewhere in ("s3://bars/clm/data", f"{SETTINGS.url}/artifacts", f"{SETTINGS.url}/artifacts/1"):
        assert pruning._own_files(elsewhere) is None
    assert Pruning(Path("nowhere"), None, None)._own_files(f"{SETTINGS.url}/artifacts/1/m-10") is None


def test_an_upload_sends_manifests_last_and_overwrites_nothing(bucket, tmp_path):
    SeriesStore(tmp_path / "data").add(HOURS, "a file", NOW)
    artifact = tmp_path / "mlflow" / "artifacts" / "models" / "m-1" / "artifacts" / "MLmodel"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"a model")
    upload = _Upload(tmp_path, bucket, None, None, None, lambda step, share: None)
    files = list(upload._files())
    assert [key.rpartition("/")[2] for _, key in files] == [
        f"{HOURS.content_hash}.parquet",
        "manifest.json",
        "MLmodel",
    ]
    assert [upload._send(*each) for each in (files[0], *files)] == [True, False, True, True]
    [manifest] = other_machine(tmp_path).manifests()
    assert other_machine(tmp_path).read(manifest).content_hash == HOURS.content_hash
    artifact.write_bytes(b"another model")
    with pytest.raises(ConflictError, match=r"artifacts/MLmodel differs from .*, and nothing"):
        upload._send(*files[2])


def test_two_threads_may_keep_a_copy_of_the_same_file(tmp_path):
    cache = FileCache(tmp_path, 2**30)
    content = bytes(2**20)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cache.add, [content] * 64))
    assert cache.read(sha256(content)) == content
    assert [path.name for path in tmp_path.iterdir()] == [sha256(content)]
