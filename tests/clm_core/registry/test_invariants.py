"""The script that checks a home by SQL and SHA-256 alone finds every broken invariant."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from processes import ANYTHING_PASSES, REQUEST, RETRAIN

from clm_core.domain.actors import SYSTEM
from clm_core.domain.operation_settings import PolicySource
from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.retraining.promoting import promote
from clm_core.services import open_services
from clm_core.settings import Settings

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import invariants  # noqa: E402 - a script beside the package


@dataclass(frozen=True)
class Life:
    """Home with a version that was trained, judged and promoted."""

    home: Path
    server: str
    job: str

    def violations(self) -> list[str]:
        return [violation.invariant for violation in invariants.violations(self.home, self.server)]

    def execute(self, database: str, statements: str) -> None:
        with psycopg.connect(self.server.replace("/postgres?", f"/{database}?")) as connection:
            connection.execute(statements.replace("$JOB", self.job))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def life(make_home: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(ANYTHING_PASSES)
    settings = Settings(
        home=make_home("invariants"),
        database_url=None,
        policy=PolicySource(file=policy),
        training=TrainingSettings(where=TrainingPlace.INLINE),
    )
    done: dict[str, object] = {"settings": settings, "request": REQUEST}
    exec(RETRAIN, done)
    with open_services(settings) as services:
        [version] = services.ledger.versions(model_id="lightgbm_btcusd_1h")
        promote(services, version.model_id, version.version, SYSTEM, "tested")
        yield Life(settings.home, services.database.server, str(version.training_job_id))


def test_a_home_after_a_retrain_and_a_promotion_has_no_violations(life: Life) -> None:
    checked = subprocess.run(
        [sys.executable, SCRIPTS / "invariants.py", life.home, "--database", life.server],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == ("No violations.\n", "", 0)


@pytest.mark.parametrize(
    ("invariant", "database", "broken", "mended"),
    [
        (
            "one-production",
            "clm_ledger",
            "DROP INDEX ix_model_versions_production; "
            "INSERT INTO model_versions SELECT (jsonb_populate_record("
            'v, \'{"version": "v20200101_000000"}\')).* FROM model_versions v',
            "DELETE FROM model_versions WHERE version = 'v20200101_000000'",
        ),
        (
            "alias",
            "clm_mlflow",
            "UPDATE registered_model_aliases SET alias = 'produced' WHERE alias = 'production'",
            "UPDATE registered_model_aliases SET alias = 'production' WHERE alias = 'produced'",
        ),
        (
            "alias",
            "clm_ledger",
            "UPDATE model_versions SET status = 'retired'",
            "UPDATE model_versions SET status = 'production'",
        ),
        (
            "number",
            "clm_ledger",
            "INSERT INTO model_versions SELECT (jsonb_populate_record("
            'v, \'{"version": "v20200101_000000", "status": "retired"}\')).* FROM model_versions v',
            "DELETE FROM model_versions WHERE version = 'v20200101_000000'",
        ),
        (
            "label",
            "clm_mlflow",
            "UPDATE registered_model_aliases SET alias = 'x' || alias WHERE alias LIKE 'v%'",
            "UPDATE registered_model_aliases SET alias = substr(alias, 2) WHERE alias LIKE 'xv%'",
        ),
        (
            "change-under-way",
            "clm_ledger",
            "UPDATE promotions SET state = 'intent', finished_at = NULL",
            "UPDATE promotions SET state = 'committed', finished_at = at",
        ),
        (
            "lease",
            "clm_ledger",
            "INSERT INTO job_leases (job_id, holder, expires_at) VALUES ('$JOB', 'nobody', now())",
            "DELETE FROM job_leases",
        ),
        (
            "audit",
            "clm_ledger",
            "ALTER TABLE audit_log DISABLE TRIGGER ALL; "
            "UPDATE audit_log SET subject = subject || 'x' WHERE seq = 2",
            "UPDATE audit_log SET subject = left(subject, -1) WHERE seq = 2",
        ),
        (
            "audit",
            "clm_ledger",
            "ALTER TABLE audit_log DISABLE TRIGGER ALL; UPDATE audit_log SET seq = seq + 100 WHERE seq > 2",
            "UPDATE audit_log SET seq = seq - 100 WHERE seq > 2",
        ),
        (
            "unknown-version",
            "clm_mlflow",
            "INSERT INTO model_versions (name, version, current_stage, status, workspace) "
            "VALUES ('lightgbm_btcusd_1h', 99, 'None', 'READY', 'default')",
            "DELETE FROM model_versions WHERE version = 99",
        ),
    ],
)
def test_an_invariant_broken_by_hand_is_reported(
    life: Life, invariant: str, database: str, broken: str, mended: str
) -> None:
    life.execute(database, broken)
    try:
        assert invariant in life.violations()
    finally:
        life.execute(database, mended)
    assert life.violations() == []


@pytest.mark.parametrize("name", ["artifacts/bundle/model.json", "artifacts/bundle/manifest.json", "MLmodel"])
def test_a_changed_file_of_a_version_is_reported(life: Life, name: str) -> None:
    [file] = life.home.glob(f"mlflow/artifacts/models/*/artifacts/{name}")
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    try:
        assert "artifacts" in life.violations()
    finally:
        file.write_bytes(content)
    assert life.violations() == []


def test_an_acknowledged_job_or_message_that_is_gone_is_reported(life: Life) -> None:
    lost = [{"job": life.job.replace(life.job[:8], "00000000")}, {"source": "monitor", "message": "1"}]
    breaches = invariants.violations(life.home, life.server, [{"job": life.job}, *lost])
    assert [violation.invariant for violation in breaches] == ["acknowledged", "acknowledged"]


def test_a_cut_off_audit_contradicts_the_anchors_of_the_home(life: Life) -> None:
    anchors = life.home / "audit" / "anchors" / "2020-01-01.jsonl"
    anchors.parent.mkdir(parents=True, exist_ok=True)
    anchors.write_text('{"at": "2020-01-01T00:00:00Z", "seq": 100000, "hash": "ab", "count": 100000}\n')
    try:
        assert life.violations() == ["audit"]
    finally:
        anchors.unlink()
