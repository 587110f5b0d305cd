"""`clm models | jobs | stats | db` on a ledger with a few versions."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import records
from click.testing import Result
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import InvalidCursor, InvalidSymbol
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.platform.database import open_database
from clm_core.services import open_services
from clm_core.settings import Settings

NOW = datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC)
Clm = Callable[..., Result]


def a_version(job: TrainingJob, hour: int) -> ModelVersion:
    return records.a_version(
        job,
        f"v{hour}",
        mlflow_version=hour,
        params={"max_depth": 5},
        environment={"xgboost": "3.1.0"},
        validation_metrics={"brier_skill_low": 0.01 * hour - 0.02, "trades": 100.0},
        created_at=NOW + timedelta(hours=hour),
    )


@pytest.fixture(scope="module")
def filled(make_home: Callable[[str], Path]) -> Path:
    """Home with four versions: v0 and v2 of XGBoost, v1 and v3 of LightGBM."""
    folder = make_home("registered")
    with open_services(Settings(home=folder, database_url=None)) as services:
        jobs = [
            services.ledger.create_job(records.a_job(model_type=each))
            for each in (ModelType.XGBOOST, ModelType.LIGHTGBM)
        ]
        for hour in range(4):
            services.ledger.add_version(a_version(jobs[hour % 2], hour))
    return folder


@pytest.fixture(scope="module")
def server(filled: Path) -> Any:
    """Running database server, shared by the commands."""
    with open_database(filled) as database:
        yield database


@pytest.fixture
def clm(filled: Path, server: object, monkeypatch: pytest.MonkeyPatch) -> Clm:
    """Runs a command in process; errors are raised as for `main`."""
    monkeypatch.setenv("CLM_HOME", str(filled))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def labels(answer: Result) -> list[str]:
    return [each["version"] for each in json.loads(answer.stdout)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["v3", "v2", "v1", "v0"]),
        (("--ascending",), ["v0", "v1", "v2", "v3"]),
        (("--model-type", "xgboost"), ["v2", "v0"]),
        (("--model-id", "lightgbm_btcusd_1h"), ["v3", "v1"]),
        (("--symbol", "btc/usd", "--timeframe", "1h", "--status", "training"), ["v3", "v2", "v1", "v0"]),
        (("--status", "failed"), []),
        (("--min-sharpe", "-100"), []),
        (("--since", "2025-12-04 17:00"), ["v3"]),
        (("--until", "2025-12-04T15:30:22"), ["v0"]),
        (("--order", "sharpe_ratio"), ["v2", "v0", "v3", "v1"]),
    ],
    ids=lambda value: "-".join(value) or "nothing",
)
def test_models_lists_the_matching_versions(options: tuple[str, ...], expected: list[str], clm: Clm) -> None:
    assert labels(clm("models", "--json", *options)) == expected


def test_a_list_is_read_page_by_page(clm: Clm) -> None:
    first = clm("models", "--json", "--limit", 3)
    [cursor] = re.findall(r"--after (\S+)", first.stderr)
    second = clm("models", "--json", "--limit", 3, "--after", cursor)
    assert (labels(first), labels(second), second.stderr) == (["v3", "v2", "v1"], ["v0"], "")
    table = clm("models", "--limit", 3)
    assert (table.stdout.count("training"), "There are more" in table.stderr) == (3, True)
    jobs = clm("jobs", "--limit", 1, "--json")
    [cursor] = re.findall(r"--after (\S+)", jobs.stderr)
    others = clm("jobs", "--limit", 1, "--json", "--after", cursor)
    model_types = {json.loads(page.stdout)[0]["model_type"] for page in (jobs, others)}
    assert model_types == {"xgboost", "lightgbm"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("models", "--after", "nonsense"), InvalidCursor),
        (("jobs", "--after", "nonsense"), InvalidCursor),
        (("models", "--symbol", "../.."), InvalidSymbol),
    ],
    ids=["models", "jobs", "symbol"],
)
def test_invalid_input_raises_an_error_of_clm(
    words: tuple[str, ...], error: type[Exception], clm: Clm
) -> None:
    with pytest.raises(error):
        clm(*words)


@pytest.mark.parametrize(
    "options", [("--min-sharpe", "nan"), ("--limit", "0"), ("--order", "luck"), ("--metric", "auc=1")]
)
def test_an_invalid_option_is_a_usage_error(options: tuple[str, ...], clm: Clm) -> None:
    assert clm("models", *options).exit_code == 2


def test_stats_counts_models_versions_and_jobs(clm: Clm) -> None:
    assert json.loads(clm("stats", "--json").stdout) == {
        "models": 2,
        "types": {"xgboost": 1, "lightgbm": 1},
        "versions": {"training": 4},
        "jobs": {"pending": 2},
        "promotions": 0,
        "rollbacks": 0,
        "forced": 0,
        "confirmations": 0,
        "promotion_rate": None,
    }
    table = clm("stats").stdout
    for row in (r"versions\s+4", r"training\s+4", r"promoted without force\s+-"):
        assert re.search(row, table)


def test_models_are_listed_by_validation_metrics_with_a_column_each(clm: Clm) -> None:
    options = ("--metric", "brier_skill_low>-0.015", "--metric", "trades>=100")
    assert labels(clm("models", "--json", *options)) == ["v3", "v2", "v1"]
    table = clm("models", *options).stdout
    assert "brier_skill_low" in table
    assert "-0.01" in table
    shown = clm("show", "lightgbm_btcusd_1h@v1").stdout
    assert "trades 100" in shown
    assert "validation metrics" in shown


def test_show_prints_the_lineage(clm: Clm) -> None:
    output = clm("show", "xgboost_btcusd_1h@v2").stdout
    assert "max_depth 5" in output
    assert "xgboost 3.1.0" in output
    lineage = json.loads(clm("show", "xgboost_btcusd_1h@v2", "--json").stdout)["lineage"]
    assert lineage["job"]["requested_by"] == "ada"
    assert (lineage["data_snapshot"], lineage["data_hash"]) == ("5a" * 32, "d" * 64)


def test_db_check_passes_until_the_tables_are_changed(clm: Clm, server: Any) -> None:
    assert clm("db", "check").exit_code == 0
    assert "Nothing to do" in clm("db", "upgrade").stdout
    assert json.loads(clm("db", "upgrade", "--json").stdout)["applied"] == []
    with create_engine(server.url("ledger")).begin() as connection:
        connection.execute(text("GRANT DELETE ON audit_log TO clm_app"))
    answer = clm("db", "check", "--json")
    assert answer.exit_code == 1
    [problem] = json.loads(answer.stdout)["problems"]
    assert "REVOKE DELETE on audit_log" in problem
    assert "REVOKE DELETE on audit_log" in clm("db", "check").stdout
