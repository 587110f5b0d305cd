"""Loading of versions by traders, and refusal of manipulated files, with MLflow and the ledger."""

import gzip
import hashlib
import io
import json
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import joblib
import mlflow
import numpy as np
import promoting
import pytest
from sqlalchemy import Engine, create_engine, text

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.allocations import AllocationEnd, AllocationRun, ArmWeight
from clm_core.domain.errors import (
    BundleCorrupt,
    ConflictError,
    HomeMismatch,
    ModelHalted,
    NotFound,
    PreflightFailed,
    RegistryUnavailable,
)
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.market.bars import Bars
from clm_core.models.bundle import MANIFEST
from clm_core.models.golden import FILE as GOLDEN
from clm_core.registry.integrity import listing
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.retraining import jobs, steps
from clm_core.services import Services
from clm_core.serving import Served, ServedAllocation, load, load_allocation

MODEL = "lightgbm_eurusd_1h"
ADMIN = Actor(name="ada", role=Role.ADMIN)
TREES = "trees.txt"
LOADER = "mlflow.pyfunc.loaders.code_model"


def register(services: Services, seed: int) -> ModelVersion:
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="EURUSD",
        dataset_span_days=110,
        training_params={"rounds": 20, "horizon": 12},
        seed=seed,
        requested_by="tests",
    )
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        return steps.register(services, lease, job, bars, steps.train(services, job, bars))


@pytest.fixture(scope="module")
def older(services: Services) -> ModelVersion:
    return register(services, seed=1)


@pytest.fixture(scope="module")
def version(older: ModelVersion, services: Services) -> ModelVersion:
    """Version registered after the older version, and in production."""
    second = replace(services, clock=lambda: services.clock() + timedelta(seconds=5))
    newer = register(second, seed=2)
    name_production(services, newer)
    return newer


def name_production(services: Services, version: ModelVersion) -> None:
    """Put a version into production, also without a verdict and after changes of the alias by a test."""
    if services.ledger.promotions.champion(MODEL) != version.version:
        now = services.clock()
        promoting.promote(services, MODEL, version.version, ADMIN, "to be loaded", now, force=True)
    services.registry.point(MODEL, "production", version.mlflow_version)


@pytest.fixture
def bars(services: Services) -> Bars:
    return services.market.bars("EURUSD", "1h", days=130, closed_by=services.clock())


@pytest.fixture
def files(version: ModelVersion, services: Services, tmp_path: Path) -> Iterator[Path]:
    """Folder of the version in the artifact store; folder and tag are restored afterwards."""
    folder = artifacts(services, version)
    shutil.copytree(folder, tmp_path / "before")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "before", folder)
    tag(services, version, version.bundle_digest)
    name_production(services, version)


def artifacts(services: Services, version: ModelVersion) -> Path:
    source = services.registry._client.get_model_version(MODEL, str(version.mlflow_version)).source
    location = services.registry._client.get_logged_model(source.removeprefix("models:/")).artifact_location
    return Path(location.removeprefix("file://"))


def tag(services: Services, version: ModelVersion, digest: str) -> None:
    services.registry._client.set_model_version_tag(
        MODEL, str(version.mlflow_version), "clm.bundle_digest", digest
    )


def with_ledger(services: Services) -> Served:
    return load(MODEL, registry=services.registry, ledger=services.ledger)


def without_ledger(services: Services) -> Served:
    return load(MODEL, registry=services.registry, ledger=None)


with_and_without_ledger = pytest.mark.parametrize("loaded", [with_ledger, without_ledger])


@with_and_without_ledger
def test_a_trader_gets_the_positions_of_the_production_version(
    loaded: Callable[[Services], Served], version: ModelVersion, services: Services, bars: Bars
) -> None:
    served = loaded(services)
    assert (served.mlflow_version, served.bundle_digest) == (version.mlflow_version, version.bundle_digest)
    expected = services.registry.load(version.model_path, version.bundle_digest).positions(bars)
    assert np.array_equal(served.positions(bars), expected)
    assert len(np.unique(expected)) > 1


def test_a_trader_keeps_the_loaded_version_and_detects_a_promotion(
    version: ModelVersion, older: ModelVersion, services: Services, bars: Bars
) -> None:
    served = with_ledger(services)
    before = served.positions(bars)
    assert not served.changed()
    name_production(services, older)
    assert served.changed()
    assert np.array_equal(served.positions(bars), before)
    assert with_ledger(services).mlflow_version == older.mlflow_version
    name_production(services, version)
    services.registry.point(MODEL, "production", None)
    assert served.changed()
    with pytest.raises(NotFound, match=f"No version of {MODEL} has the alias production"):
        with_ledger(services)
    name_production(services, version)
    assert not served.changed()


def test_an_unregistered_model_is_not_found(services: Services) -> None:
    with pytest.raises(NotFound, match="No version of nhits_btcusd_1h has the alias production"):
        load("nhits_btcusd_1h", registry=services.registry, ledger=None)


def test_a_registry_without_a_home_loads_versions_and_stores_none(
    version: ModelVersion, services: Services
) -> None:
    registry = MLflowRegistry(services.registry.uri)
    assert load(MODEL, registry=registry, ledger=None).bundle_digest == version.bundle_digest
    with pytest.raises(HomeMismatch, match="reads versions and stores none"):
        assert registry.location


@with_and_without_ledger
def test_the_files_of_an_older_version_are_refused_for_the_newer(
    loaded: Callable[[Services], Served], older: ModelVersion, files: Path, services: Services
) -> None:
    shutil.rmtree(files / "artifacts" / "bundle")
    shutil.copytree(artifacts(services, older) / "artifacts" / "bundle", files / "artifacts" / "bundle")
    with pytest.raises(BundleCorrupt, match=r"manifest\.json was changed"):
        loaded(services)


def test_a_replaced_bundle_with_a_matching_tag_is_refused_only_with_the_ledger(
    older: ModelVersion, version: ModelVersion, files: Path, services: Services
) -> None:
    shutil.rmtree(files / "artifacts" / "bundle")
    shutil.copytree(artifacts(services, older) / "artifacts" / "bundle", files / "artifacts" / "bundle")
    tag(services, version, older.bundle_digest)
    assert without_ledger(services).bundle_digest == older.bundle_digest
    with pytest.raises(BundleCorrupt, match=r"manifest\.json was changed"):
        with_ledger(services)


@pytest.mark.parametrize(
    ("loaded", "refusal"),
    [(with_ledger, "is not in the ledger"), (without_ledger, "was not registered by CLM")],
)
def test_a_version_created_by_hand_is_refused(
    loaded: Callable[[Services], Served],
    refusal: str,
    version: ModelVersion,
    files: Path,
    services: Services,
) -> None:
    made = services.registry._client.create_model_version(MODEL, str(files), version.mlflow_run_id)
    services.registry.point(MODEL, "production", int(made.version))
    with pytest.raises(NotFound, match=refusal):
        loaded(services)


@with_and_without_ledger
def test_missing_files_are_named_in_the_error(
    loaded: Callable[[Services], Served], files: Path, services: Services
) -> None:
    shutil.rmtree(files / "artifacts" / "bundle")
    with pytest.raises(RegistryUnavailable, match="could not read the bundle of"):
        loaded(services)


def test_a_model_whose_answers_differ_from_the_registered_answers_is_refused(
    version: ModelVersion, files: Path, services: Services
) -> None:
    rows = json.loads((files / "artifacts" / "bundle" / GOLDEN).read_text())
    rows["positions"][-1] = 0.123
    forge(services, version, files, GOLDEN, json.dumps(rows).encode())
    with pytest.raises(PreflightFailed, match="other answers here than at the time of saving"):
        without_ledger(services)


def forge(services: Services, version: ModelVersion, files: Path, name: str, content: bytes) -> None:
    """Put a file into the bundle and adapt manifest and tag, as an attacker without the ledger could."""
    bundle = files / "artifacts" / "bundle"
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / MANIFEST).read_text())
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest["files"][name] = entry
    raw = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    (bundle / MANIFEST).write_bytes(raw)
    tag(services, version, hashlib.sha256(raw).hexdigest())


class Payload:
    """Object that creates the folder `mark` when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def gzipped(mark: Path) -> bytes:
    return gzip.compress(pickled(mark))


def with_joblib(mark: Path) -> bytes:
    joblib.dump(Payload(mark), file := io.BytesIO())
    return file.getvalue()


def as_torch_checkpoint(mark: Path) -> bytes:
    """Checkpoint of torch: a zip whose `data.pkl` is unpickled, with a member that escapes the folder."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(mark), protocol=2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(4))
        archive.writestr("../../../../escaped", "x")
    return file.getvalue()


OLD_TORCH = (
    0x1950A86A20F9469CFC6C,
    1001,
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
)
"""Header of torch files until 1.6, still read by torch: magic number, version and machine."""


def as_old_torch_file(mark: Path) -> bytes:
    """File of torch until 1.6: pickles in a row, the last two the model and the names of the tensors."""
    file = io.BytesIO()
    for part in (*OLD_TORCH, Payload(mark), []):
        pickle.dump(part, file, protocol=2)
    return file.getvalue()


def unpickled_one_by_one(raw: bytes) -> list[object]:
    file = io.BytesIO(raw)
    return [pickle.load(file) for _ in range(len(OLD_TORCH) + 2)]


class Restored:
    """Object that creates the folder `mark` when restored by skops."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __getstate__(self) -> dict[str, object]:
        return {"mark": str(self.mark)}

    def __setstate__(self, state: dict[str, str]) -> None:
        os.mkdir(state["mark"])


def with_skops(mark: Path) -> bytes:
    # the import looks through every module of the process: seconds, in each process that collects the tests
    import skops.io

    return skops.io.dumps(Restored(mark))


def trusting_its_own_list(raw: bytes) -> object:
    import skops.io

    return skops.io.loads(raw, trusted=skops.io.get_untrusted_types(data=raw))


HOSTILE: list[tuple[Callable[[Path], bytes], Callable[[bytes], object]]] = [
    (pickled, pickle.loads),
    (gzipped, lambda raw: pickle.loads(gzip.decompress(raw))),
    (with_joblib, lambda raw: joblib.load(io.BytesIO(raw))),
    (
        as_torch_checkpoint,
        lambda raw: pickle.loads(zipfile.ZipFile(io.BytesIO(raw)).read("archive/data.pkl")),
    ),
    (as_old_torch_file, unpickled_one_by_one),
    (with_skops, trusting_its_own_list),
]


@with_and_without_ledger
@pytest.mark.parametrize("name", [TREES, "model.json", GOLDEN, "model.pkl", "../model.json"])
@pytest.mark.parametrize(("make", "trusting"), HOSTILE, ids=[make.__name__ for make, _ in HOSTILE])
def test_a_hostile_file_in_the_bundle_runs_nothing_and_is_refused(
    make: Callable[[Path], bytes],
    trusting: Callable[[bytes], object],
    name: str,
    loaded: Callable[[Services], Served],
    version: ModelVersion,
    files: Path,
    services: Services,
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    trusting(make(mark))
    mark.rmdir()
    forge(services, version, files, name, make(mark))
    with pytest.raises(BundleCorrupt):
        loaded(services)
    assert not mark.exists()


def own_loader(files: Path, hostile: str) -> None:
    description = (files / "MLmodel").read_text()
    changed = description.replace(LOADER, "hostile").replace("code: null", "code: code")
    (files / "MLmodel").write_text(changed)
    (files / "code").mkdir()
    (files / "code" / "hostile.py").write_text(f"{hostile}from {LOADER} import _load_pyfunc\n")


def own_serving_code(files: Path, hostile: str) -> None:
    code = files / "serving.py"
    code.write_text(hostile + code.read_text())


@with_and_without_ledger
@pytest.mark.parametrize(
    ("edit", "finding"),
    [(own_loader, "MLmodel was changed"), (own_serving_code, r"serving\.py was changed")],
    ids=["a loader", "serving code"],
)
def test_edited_code_beside_the_bundle_is_refused_and_never_run(
    edit: Callable[[Path, str], None],
    finding: str,
    loaded: Callable[[Services], Served],
    version: ModelVersion,
    files: Path,
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = tmp_path / "mark"
    edit(files, f"import os\nos.mkdir({str(mark)!r})\n")
    # MLflow puts the version's code on the path and imports it
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    mlflow.pyfunc.load_model(version.model_path)
    mark.rmdir()
    with pytest.raises(BundleCorrupt, match=finding):
        loaded(services)
    assert not mark.exists()


@with_and_without_ledger
@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("hook.py", r"hook\.py does not belong to the version"),
        ("artifacts/model.pkl", r"artifacts/model\.pkl does not belong to the version"),
        ("requirements.txt", r"requirements\.txt was changed"),
        ("python_env.yaml", r"python_env\.yaml was changed"),
    ],
)
def test_an_added_or_changed_file_beside_the_bundle_is_refused(
    name: str, finding: str, loaded: Callable[[Services], Served], files: Path, services: Services
) -> None:
    (files / name).write_bytes(b"another")
    with pytest.raises(BundleCorrupt, match=finding):
        loaded(services)


def test_loading_a_version_in_place_writes_no_file_beside_it(version: ModelVersion, files: Path) -> None:
    keeps_bytecode = {name: value for name, value in os.environ.items() if "BYTECODE" not in name}
    before = listing(files)
    script = f"import mlflow; mlflow.pyfunc.load_model({str(files)!r})"
    subprocess.run([sys.executable, "-c", script], env=keeps_bytecode, check=True)
    assert listing(files) == before


@with_and_without_ledger
def test_bytecode_in_place_of_the_serving_code_is_refused(
    loaded: Callable[[Services], Served], files: Path, services: Services
) -> None:
    (files / "__pycache__").unlink()
    (files / "__pycache__").mkdir()
    py_compile.compile(str(files / "serving.py"))
    with pytest.raises(BundleCorrupt, match="__pycache__ is missing"):
        loaded(services)


def test_a_refusal_at_loading_is_recorded_once_and_alerted(
    version: ModelVersion, files: Path, services: Services
) -> None:
    services.ledger.promotions.trust_bundle(version, services.clock())
    (files / "requirements.txt").unlink()
    before = refusals(services)
    for _ in range(2):
        with pytest.raises(BundleCorrupt, match=r"requirements\.txt is missing"):
            with_ledger(services)
    assert refusals(services) == before + 1
    subjects = [alert.subject for alert in services.alerts.lasting(AlertKind.BUNDLE_REFUSED)]
    assert f"{MODEL}@{version.version}" in subjects
    services.ledger.promotions.trust_bundle(version, services.clock())


def refusals(services: Services) -> int:
    with create_engine(services.database.url("ledger")).begin() as connection:
        query = text("SELECT count(*) FROM audit_log WHERE action = 'bundle_refused' AND subject = :id")
        return connection.scalars(query, {"id": MODEL}).one()


def test_a_replaced_listing_is_refused_only_with_the_ledger(
    version: ModelVersion, files: Path, services: Services
) -> None:
    (files / "hook.py").write_text("")
    number = str(version.mlflow_version)
    before = services.registry._tags(MODEL, version.mlflow_version)["clm.package"]
    services.registry._client.set_model_version_tag(MODEL, number, "clm.package", listing(files))
    without_ledger(services)
    with pytest.raises(BundleCorrupt, match=r"the tag clm\.package was changed"):
        with_ledger(services)
    services.registry._client.set_model_version_tag(MODEL, number, "clm.package", before)


@pytest.mark.parametrize(("max_bytes", "refused"), [(10_000, True), (10_000_000, False)])
def test_a_version_above_the_maximum_size_is_not_fetched(
    max_bytes: int, refused: bool, version: ModelVersion, services: Services
) -> None:
    registry = MLflowRegistry(services.database.url("mlflow"), services.settings.home, max_bytes=max_bytes)
    expected = pytest.raises(BundleCorrupt, match="max_version_mib") if refused else nullcontext()
    with expected:
        load(MODEL, registry=registry, ledger=None)


def test_a_version_behind_an_alias_moved_by_hand_is_refused(
    version: ModelVersion, older: ModelVersion, files: Path, services: Services
) -> None:
    services.registry.point(MODEL, "production", older.mlflow_version)
    with pytest.raises(ConflictError, match="was moved by hand"):
        with_ledger(services)
    assert without_ledger(services).mlflow_version == older.mlflow_version


@with_and_without_ledger
def test_a_retired_version_is_loaded_by_its_label_with_a_warning(
    loaded: Callable[..., Served], version: ModelVersion, older: ModelVersion, services: Services
) -> None:
    name_production(services, older)
    name_production(services, version)
    ledger = services.ledger if loaded is with_ledger else None
    with pytest.warns(UserWarning, match=f"{older.version} is retired: do not trade it"):
        served = load(MODEL, older.version, registry=services.registry, ledger=ledger)
    assert (served.status, served.mlflow_version) == (ModelStatus.RETIRED, older.mlflow_version)


@pytest.fixture
def allocation(
    version: ModelVersion, older: ModelVersion, services: Services, ledger_engine: Engine
) -> Iterator[AllocationRun]:
    """Allocation of 60 % to the production version and 40 % to the older version."""
    name_production(services, version)
    change = text("UPDATE model_versions SET status = :s WHERE model_id = :m AND version = :v")
    named = {"m": MODEL, "v": older.version}
    before = services.ledger.version(MODEL, older.version).status
    arms = [ArmWeight(version=version.version, weight=0.6), ArmWeight(version=older.version, weight=0.4)]
    with ledger_engine.begin() as connection:
        connection.execute(change, named | {"s": "candidate"})
    run = services.ledger.allocations.start(MODEL, arms, "paper", ADMIN, "", services.clock())
    yield run
    services.ledger.allocations.end(run, AllocationEnd.STOPPED, "tested", ADMIN, services.clock())
    with ledger_engine.begin() as connection:
        connection.execute(change, named | {"s": before})


def allocated(services: Services) -> ServedAllocation:
    return load_allocation(MODEL, registry=services.registry, ledger=services.ledger)


def test_a_trader_without_an_allocation_gets_the_production_version_with_weight_one(
    version: ModelVersion, services: Services, bars: Bars
) -> None:
    name_production(services, version)
    served = allocated(services)
    assert served.weights == {version.version: 1.0}
    assert np.array_equal(served.positions(bars), with_ledger(services).positions(bars))
    arm = served.arm(services.clock())
    assert arm is not None
    assert arm.mlflow_version == version.mlflow_version


def test_a_trader_splits_the_capital_by_weight_or_gives_each_bar_one_arm(
    allocation: AllocationRun, version: ModelVersion, older: ModelVersion, services: Services, bars: Bars
) -> None:
    served = allocated(services)
    assert served.weights == {version.version: 0.6, older.version: 0.4}
    ours = with_ledger(services).positions(bars)
    theirs = services.registry.load(older.model_path, older.bundle_digest).positions(bars)
    np.testing.assert_allclose(served.positions(bars), 0.6 * ours + 0.4 * theirs)
    assert served.bars_needed is not None
    times = [services.clock() + timedelta(hours=hour) for hour in range(40)]
    chosen = [getattr(served.arm(time), "mlflow_version", None) for time in times]
    assert set(chosen) == {version.mlflow_version, older.mlflow_version}
    assert chosen == [getattr(allocated(services).arm(time), "mlflow_version", None) for time in times]


def test_a_trader_learns_of_changed_weights_and_of_a_halt(
    allocation: AllocationRun, version: ModelVersion, services: Services, bars: Bars
) -> None:
    served = allocated(services)
    assert not served.changed()
    store = services.ledger.allocations
    arms = [
        ArmWeight(version=label, weight=weight)
        for label, weight in zip(allocation.arms, (1.0, 0.0), strict=True)
    ]
    store.weigh(allocation, store.weights(allocation)[-1], arms, ["moved"], ADMIN, services.clock())
    assert served.changed()
    out = [arms[0], arms[1].model_copy(update={"out": "drawdown"})]
    store.weigh(allocation, store.weights(allocation)[-1], out, ["out"], ADMIN, services.clock())
    without = allocated(services)
    assert list(without.arms) == [version.version]
    assert np.array_equal(without.positions(bars), with_ledger(services).positions(bars))
    services.promotions.halt(MODEL, ADMIN, "exchange down", services.clock())
    assert without.changed()
    with pytest.raises(ModelHalted, match="exchange down"):
        allocated(services)
    name_production(services, version)


@with_and_without_ledger
@pytest.mark.parametrize(
    ("target", "refusal"),
    [
        ("/etc/passwd", "outside the artifact directory"),
        ("/etc", "outside the artifact directory"),
        ("../../MLmodel", "trees.txt was changed"),
        ("../elsewhere", "trees.txt is not a regular file"),
    ],
    ids=["a file elsewhere", "a folder elsewhere", "another file", "a folder"],
)
def test_a_link_in_the_place_of_a_file_is_refused(
    target: str, refusal: str, loaded: Callable[[Services], Served], files: Path, services: Services
) -> None:
    (files / "artifacts" / "elsewhere").mkdir()
    link = files / "artifacts" / "bundle" / TREES
    link.unlink()
    link.symlink_to(target)
    with pytest.raises((BundleCorrupt, RegistryUnavailable), match=refusal):
        loaded(services)
