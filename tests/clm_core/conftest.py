"""Versions at low cost: a single small model is trained, and every version holds the same bundle."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
import records
from copied_versions import CopiedVersions
from processes import Parent, parent_of
from psycopg.sql import SQL
from secret_servers import SecretServer, serving_secrets
from sqlalchemy import Engine, NullPool, create_engine, text
from trials import count_trial_of

from clm_core.backtest.results import Metrics
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.promotions import PromotionKind
from clm_core.domain.terms import EvaluationTerms
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount
from clm_core.ledger import audit_log
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.registry.locations import artifacts_folder
from clm_core.retraining.steps import taken_labels
from clm_core.services import Services

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
GOOD = Metrics(
    total_return=0.4,
    cagr=0.3,
    volatility=0.1,
    sharpe_ratio=2.0,
    sortino_ratio=2.5,
    calmar_ratio=3.0,
    max_drawdown=-0.08,
    profit_factor=1.8,
    win_rate=0.58,
    trades=120,
    exposure=0.5,
    turnover=30.0,
)
CHANGED = {
    "promotion_committed",
    "forced_promotion",
    "rollback_committed",
    "alias_move_adopted",
    "production_lost",
    "production_halted",
    "production_restored",
}
"""Audit actions of changes of the production version."""
MADE = ["version_registered", "version_judged", "version_rejudged", "version_status_changed"]
"""Audit actions of the creation and the judgement of a version."""


@dataclass(frozen=True)
class Stored:
    """A bundle on disk."""

    folder: Path
    digest: str
    bars: Bars


@pytest.fixture(scope="session")
def bao() -> Iterator[SecretServer]:
    """OpenBao server of the test process."""
    with serving_secrets() as server:
        yield server


@pytest.fixture(scope="session")
def bundle(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    bars = services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())
    recipe = catalog.recipe(ModelType.LIGHTGBM, {"rounds": 2}, Costs())
    folder = tmp_path_factory.mktemp("trained") / "bundle"
    return Stored(folder, save_bundle(recipe.fit(bars, seed=1), recipe, folder, bars), bars)


_symbols = (f"T{number}USD" for number in itertools.count())


@pytest.fixture
def model_id() -> str:
    """Id of a model used by no other test."""
    return f"lightgbm_{next(_symbols)}_1h".lower()


MakeVersion = Callable[..., ModelVersion]


@pytest.fixture(scope="session")
def copied_versions(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopiedVersions]:
    artifacts = artifacts_folder(services.settings.home)
    with psycopg.connect(services.database.server, dbname="clm_mlflow", autocommit=True) as connection:
        yield CopiedVersions(connection, artifacts, tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="session")
def make_version(services: Services, bundle: Stored, copied_versions: CopiedVersions) -> MakeVersion:
    """Function that registers, judges and records a version, as a completed retrain does.

    Registrations are copies of the first, except with `in_full`.
    """

    def make(
        model_id: str,
        *,
        sharpe: float = 2.0,
        judged: bool = True,
        completed: bool = True,
        now: datetime = NOW,
        stored: Stored = bundle,
        terms: EvaluationTerms | Literal["in force"] | None = "in force",
        in_full: bool = False,
    ) -> ModelVersion:
        job, lease = _job(services, model_id)
        above = max(services.ledger.promotions.numbers(model_id).values(), default=0)
        labels = partial(taken_labels, services, model_id)
        with services.ledger.labels.reserved(model_id, now, labels) as label:
            of_bundle = stored.folder, stored.digest, stored.bars
            register = partial(services.registry.register, job, *of_bundle, {}, {}, label, above)
            copied = partial(copied_versions.register, job, stored.digest, label, above, register)
            placed = register() if in_full else copied()
        version = services.ledger.add_version(
            records.a_version(
                job,
                placed.label,
                model_path=placed.uri,
                mlflow_version=placed.mlflow_version,
                mlflow_run_id=placed.run_id,
                bundle_digest=stored.digest,
                package_digest=placed.package_digest,
                data_hash=stored.bars.content_hash,
                created_at=now,
            ),
            lease,
        )
        if judged:
            under = _terms_in_force(services, version) if terms == "in force" else terms
            version = _judge(services, lease, version, sharpe, under)
        if completed:
            services.ledger.complete_job(lease, NOW)
        return version

    return make


def _job(services: Services, model_id: str) -> tuple[TrainingJob, Lease]:
    model_type, symbol, timeframe = model_id.split("_")
    job = records.a_job(
        model_type=ModelType(model_type),
        symbol=symbol.upper(),
        timeframe=timeframe,
        dataset_span_days=60,
        requested_by="tests",
        seed=1,
        created_at=NOW,
    )
    services.ledger.create_job(job)
    return job, services.ledger.start_job(job.id, "tests", NOW, timedelta(minutes=1))


POLICY = GatePolicy(name="thresholds-only", evidence=None)


def _verdict(metrics: Metrics) -> Verdict:
    nothing = track_record(np.zeros(1))
    case = Case(metrics, Activity("long", 0.5, 0.5), nothing, TrialCount(1, 1.0, 0.0), 8760.0, None)
    return gate.judge(case, POLICY)


def _terms_in_force(services: Services, version: ModelVersion) -> EvaluationTerms:
    """Terms of the version's market by the settings of the home, at which a promotion judges."""
    kind = records.TERMS
    terms = services.home_terms(version.symbol, kind.calendar).terms
    return EvaluationTerms.of(terms, kind.walk_forward, kind.calendar, kind.gap_rules)


def _judge(
    services: Services, lease: Lease, version: ModelVersion, sharpe: float, terms: EvaluationTerms | None
) -> ModelVersion:
    metrics = replace(GOOD, sharpe_ratio=sharpe)
    verdict = _verdict(metrics)
    count_trial_of(services.ledger, version, lease)
    result = records.an_evaluation(
        version.model_id,
        version.version,
        sharpe_ratio=metrics.sharpe_ratio,
        sortino_ratio=metrics.sortino_ratio,
        calmar_ratio=metrics.calmar_ratio,
        win_rate=metrics.win_rate,
        profit_factor=metrics.profit_factor,
        max_drawdown=metrics.max_drawdown,
        total_pnl=metrics.total_return,
        trades=metrics.trades,
        period_start=NOW,
        period_end=NOW,
        passed=verdict.passed,
        promotion_score=verdict.score,
        failure_reason="; ".join(verdict.reasons) or None,
        created_at=NOW,
        terms=terms,
        terms_digest=None if terms is None else terms.digest,
    )
    services.ledger.add_evaluation(result, verdict, POLICY, version.bundle_digest, lease)
    status = ModelStatus.CANDIDATE if verdict.passed else ModelStatus.FAILED
    return services.ledger.set_version_status(version.model_id, version.version, status, NOW, lease)


@pytest.fixture(scope="session")
def ledger_engine(services: Services) -> Iterator[Engine]:
    engine = create_engine(services.database.url("ledger"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def audited(ledger_engine: Engine) -> Callable[[str], list[str]]:
    """Function that returns the audit actions on a model after the creation of its versions, oldest first."""

    def actions(model_id: str) -> list[str]:
        query = text(
            "SELECT action FROM audit_log WHERE subject = :id AND action <> ALL (:made) ORDER BY seq"
        )
        with ledger_engine.begin() as connection:
            return list(connection.scalars(query, {"id": model_id, "made": MADE}))

    return actions


@pytest.fixture(scope="session")
def check(
    services: Services, ledger_engine: Engine, audited: Callable[[str], list[str]]
) -> Callable[[str], None]:
    """Function that asserts the invariants of a model while no promotion is under way."""

    def holds(model_id: str) -> None:
        store = services.ledger.promotions
        committed = store.committed(model_id)
        champion = store.champion(model_id)
        assert store.under_way(model_id) is None
        serving = services.ledger.versions(model_id=model_id, status=ModelStatus.PRODUCTION)
        assert [version.version for version in serving] == ([] if champion is None else [champion])
        numbers = [version.mlflow_version for version in serving]
        assert [services.registry.aliased(model_id, "production")] == (numbers or [None])
        assert tagged(model_id, "production") == numbers
        assert [change.from_version for change in committed] == [
            None,
            *(change.to_version for change in committed),
        ][:-1]
        announced = [change for change in committed if change.kind is not PromotionKind.LOSS]
        assert events(model_id) == [change.id for change in announced]
        assert len(committed) == len([action for action in audited(model_id) if action in CHANGED])

    def tagged(model_id: str, status: str) -> list[int]:
        import mlflow

        uri = services.database.url("mlflow")
        query = f"name = '{model_id}' AND tags.`clm.status` = '{status}'"
        return [
            int(version.version) for version in mlflow.MlflowClient(uri, uri).search_model_versions(query)
        ]

    def events(model_id: str) -> list[int]:
        query = text(
            "SELECT (payload->>'promotion_id')::int FROM outbox "
            "WHERE payload->>'model_id' = :id AND payload ? 'promotion_id' ORDER BY seq"
        )
        with ledger_engine.begin() as connection:
            return list(connection.scalars(query, {"id": model_id}))

    return holds


@pytest.fixture(scope="session")
def parent(services: Services) -> Iterator[Parent]:
    """Of processes that can be killed."""
    with parent_of(services) as ready:
        yield ready


@pytest.fixture(scope="session")
def verify_audit(services: Services) -> Callable[[], None]:
    """Holds the audit to its chain and to its anchors, the newest entry's included."""
    engine = create_engine(services.database.url("ledger"))
    folder = audit_log.anchor_folder(services.settings.home)

    def verify() -> None:
        audit_log.anchor(engine, folder, services.clock())
        report = audit_log.verify(engine, audit_log.read_anchors(folder))
        assert report.problems == ()
        assert report.anchored == report.entries

    return verify


EMPTIED_DATABASE = "clm_ledger_of_triggers"


@pytest.fixture(scope="session")
def ledger_url(services: Services) -> str:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL(f"CREATE DATABASE {EMPTIED_DATABASE}"))
    url = urlsplit(services.database.url("ledger"))._replace(path=f"/{EMPTIED_DATABASE}").geturl()
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def engine(ledger_url: str) -> Iterator[Engine]:
    opened = open_engine(ledger_url)
    yield opened
    opened.dispose()


@pytest.fixture
def clm(services: Services, ledger_url: str, engine: Engine) -> Services:
    """Services on an empty ledger."""
    with create_engine(ledger_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("TRUNCATE training_jobs, inbox, strategy_candidates, begun_trials CASCADE"))
    return replace(services, ledger=Ledger(engine))
