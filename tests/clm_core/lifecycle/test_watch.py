"""Watch over production versions on bars after the training, with requests to the intake."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import promoting
import pytest
from jobs import end_all_jobs
from panels import a_market
from records import a_job, a_version
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from clm_core.backtest.terms import MarketTerms
from clm_core.cli.app import app
from clm_core.decisions.health import HealthFinding
from clm_core.decisions.staleness import DueRetrain
from clm_core.domain.actors import Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.drift_history import PREDICTION, SHAP
from clm_core.domain.errors import PassIncomplete
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.terms import TradingTerms
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import Observation, Reply
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.domain.watch_rules import WatchRules
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.triggers import RetrainsSince
from clm_core.lifecycle import watch
from clm_core.lifecycle.drift_watch import drift_history
from clm_core.lifecycle.watch import WatchedVersion, WatchReport
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.drift import CALENDAR
from clm_core.market.features import FEATURES, LOOK_BACK
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.platform.prefect_server import load_flow
from clm_core.registry.promotion import Promotions
from clm_core.retraining import jobs, steps
from clm_core.services import Services

ADMIN = Actor(name="ada", role=Role.ADMIN)
NEW = 950
"""Bars that come after the training."""
DEGRADED = TriggerReason.PERFORMANCE_DEGRADED
DRIFTED = TriggerReason.DRIFT_DETECTED
NEW_BARS = TriggerReason.DATA_THRESHOLD
STALE = TriggerReason.PERIODIC
CHANGED = TriggerReason.REGIME_CHANGE
EAGER = {"rounds": 20, "threshold": 0, "learning_rate": 0.3, "min_child_weight": 1, "sizing": "none"}
STRICT = TriggerPolicy(max_sharpe_ratio=50)
"""No model is good enough."""


class Market:
    """A market whose newest bars arrive on demand."""

    def __init__(self, bars: Bars, home: Path) -> None:
        self._bars = bars
        self._store = SeriesStore(home / "data")
        self.data = MarketData(home)

    def lack(self, bars: int) -> None:
        """Store all bars but the newest few."""
        come = self._bars[: len(self._bars) - bars]
        self._store.add(come, "tests", come.end.to_pydatetime() + timedelta(hours=1))


@pytest.fixture
def market(services: Services, tmp_path: Path) -> Market:
    market = Market(services.market.bars("BTCUSD", "1h", closed_by=services.clock()), tmp_path)
    market.lack(NEW)
    return market


@pytest.fixture
def own(clm: Services, engine: Engine, market: Market) -> Services:
    """Services with a separate ledger and market."""
    return replace(
        clm,
        settings=clm.settings.model_copy(
            update={"walk_forward": WalkForwardPlan(folds=2), "triggers": STRICT}
        ),
        promotions=Promotions(clm.ledger, clm.registry, None),
        alerts=AlertStore(engine),
        open_market=lambda: market.data,
    )


def serve(services: Services, model_type: ModelType = ModelType.LIGHTGBM, **changes: Any) -> ModelVersion:
    """A poor model that trades often, promoted against the verdict of the gate."""
    fields: dict[str, Any] = {
        "model_type": model_type,
        "symbol": "BTCUSD",
        "dataset_span_days": 60,
        "training_params": EAGER,
        "seed": 3,
        "requested_by": "tests",
    }
    job = jobs.open_job(services, RetrainRequest.model_validate(fields | changes))
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        tested = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        steps.judge(services, lease, version, tested)
    now = services.clock()
    promoting.promote(services, version.model_id, version.version, ADMIN, "tested", now, force=True)
    return version


def watch_one(services: Services) -> WatchedVersion:
    report = watch.run(services)
    assert report.problems == ()
    [watched] = report.models
    return watched


def answers(watched: WatchedVersion) -> list[tuple[TriggerReason, Reply]]:
    return [(each.request.training.trigger_reason, each.reply) for each in watched.asked]


def later(services: Services, days: float) -> Services:
    return replace(services, clock=lambda: services.clock() + timedelta(days=days))


def test_the_headline_says_that_no_model_is_in_production(clm: Services, engine: Engine) -> None:
    report = watch.run(replace(clm, alerts=AlertStore(engine)))
    assert (report.models, report.problems) == ((), ())
    assert report.headline.startswith("No model is in production")


def test_a_retrain_for_the_same_new_bars_is_requested_once(own: Services, market: Market) -> None:
    version = serve(own)
    fresh = watch_one(own)
    assert (fresh.new_bars, fresh.finding, fresh.asked) == (0, HealthFinding.TOO_EARLY, ())

    market.lack(NEW - 99)
    few = watch_one(own)
    assert (few.new_bars, few.performance.bars, few.finding, few.asked) == (
        99,
        99,
        HealthFinding.TOO_EARLY,
        (),
    )

    market.lack(0)
    watched = watch_one(own)
    assert (watched.new_bars, watched.performance.bars, watched.finding) == (NEW, NEW, HealthFinding.UNSURE)
    assert watched.performance.alarm.raised_on_day is None
    assert answers(watched) == [(NEW_BARS, Reply.ACCEPTED)]
    answer = watched.asked[0]
    [job] = [job for job in own.ledger.jobs() if job.id == answer.job_id]
    as_it_was = own.ledger.job(version.training_job_id)
    assert (job.training_params, job.seed, job.dataset_span_days) == (
        as_it_was.training_params,
        as_it_was.seed,
        as_it_was.dataset_span_days,
    )
    assert job.data_snapshot == market.data.bars("BTCUSD", "1h", closed_by=datetime.now(UTC)).content_hash
    assert answer.request.observed.new_samples == NEW
    assert (answer.request.actor.name, answer.request.source, job.requested_by) == ("watch", "watch", "watch")

    # the same facts while the job waits
    assert answers(watch_one(own)) == [(NEW_BARS, Reply.COALESCED)]
    assert len(own.ledger.jobs()) == 2


def test_a_retrain_without_a_promotion_doubles_the_new_bars_to_wait_for(
    own: Services, market: Market
) -> None:
    serve(own)
    market.lack(NEW - 100)
    assert answers(watch_one(own)) == [(NEW_BARS, Reply.ACCEPTED)]
    end_all_jobs(own)
    market.lack(NEW - 199)
    patient = later(own, days=2)
    assert answers(watch_one(patient)) == []
    market.lack(NEW - 200)
    assert answers(watch_one(patient)) == [(NEW_BARS, Reply.ACCEPTED)]
    end_all_jobs(own)
    market.lack(NEW - 399)
    assert answers(watch_one(later(own, days=4))) == []


def test_a_model_is_stale_when_no_retrain_began_for_a_month(own: Services, market: Market) -> None:
    serve(own)
    market.lack(NEW - 100)
    assert answers(watch_one(later(own, days=20))) == [(NEW_BARS, Reply.ACCEPTED)]
    end_all_jobs(own)
    assert answers(watch_one(later(own, days=40))) == [], "a retrain began 20 days ago"
    assert answers(watch_one(later(own, days=51))) == [(STALE, Reply.ACCEPTED)]


@pytest.mark.parametrize(
    ("reason", "changes", "same"),
    [
        (DEGRADED, {"steps": 9, "ended": 2}, True),
        (DEGRADED, {"failed": 1}, False),
        (DRIFTED, {"steps": 3, "ended": 2}, True),
        (DRIFTED, {"steps": 4}, False),
        (NEW_BARS, {"steps": 9}, True),
        (NEW_BARS, {"ended": 1}, False),
        (CHANGED, {"steps": 9, "ended": 2}, True),
        (CHANGED, {"failed": 1}, False),
    ],
)
def test_a_request_is_repeated_under_its_key_until_a_retrain_could_end_otherwise(
    reason: TriggerReason, changes: dict[str, int], same: bool
) -> None:
    version = a_version(a_job())
    facts = {"steps": 2, "ended": 0, "failed": 0}

    def key(steps: int, ended: int, failed: int) -> str:
        due = DueRetrain(version.model_id, reason, Observation(regime_since=datetime(2026, 1, 2, tzinfo=UTC)))
        return watch._key(version, due, steps, RetrainsSince(ended, failed, None))

    assert (key(**facts) == key(**facts | changes)) is same


def test_a_change_of_the_regime_since_the_training_asks_once(
    own: Services, services: Services, engine: Engine, tmp_path: Path
) -> None:
    market = Market(services.market.bars("BTCUSD", "1h", closed_by=services.clock()), tmp_path / "turbulent")
    market.lack(100 * 24)
    own = replace(own, open_market=lambda: market.data)
    serve(own)
    calm = watch_one(own)
    assert calm.regime is not None
    assert (calm.regime.name, calm.regime.at_training) == ("calm", "calm")
    assert CHANGED not in dict(answers(calm))
    market.lack(0)
    silent = WatchRules(regime_changes=False)
    watched = watch_one(replace(own, settings=own.settings.model_copy(update={"watch": silent})))
    assert watched.regime is not None
    assert watched.regime.has_changed
    assert CHANGED not in dict(answers(watched))
    turbulent = watch_one(own)
    assert turbulent.regime is not None
    assert (turbulent.regime.name, turbulent.regime.at_training) == ("turbulent", "calm")
    [answer] = [each for each in turbulent.asked if each.request.training.trigger_reason is CHANGED]
    since = datetime(2019, 7, 11, tzinfo=UTC)
    assert answer.reply in (Reply.ACCEPTED, Reply.COALESCED)
    assert answer.request.observed == Observation(regime="turbulent", regime_since=since)
    [again] = [each for each in watch_one(own).asked if each.request.training.trigger_reason is CHANGED]
    assert (again.reply, again.job_id) == (Reply.COALESCED, answer.job_id)
    assert _regime_events(engine, turbulent) == [
        {
            "model_id": turbulent.model_id,
            "version": turbulent.version,
            "symbol": "BTCUSD",
            "timeframe": "1h",
            "previous": "calm",
            "current": "turbulent",
            "since": "2019-07-11T00:00:00Z",
        }
    ]


def _regime_events(engine: Engine, watched: WatchedVersion) -> list[dict[str, Any]]:
    select = "SELECT payload FROM outbox WHERE type = 'market.regime_changed' AND payload->>'version' = :v"
    with engine.begin() as connection:
        return list(connection.scalars(text(select), {"v": watched.version}))


def test_only_bars_after_the_training_count_and_trading_starts_flat(own: Services, market: Market) -> None:
    version = serve(own)
    market.lack(0)
    model = own.registry.load(version.model_path, version.bundle_digest)
    bars = market.data.bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    expected_positions = model.positions(bars)
    new = np.flatnonzero(bars.index > model.trained_on.end)
    assert len(new) == NEW
    terms = own.terms(bars.symbol, bars.calendar)
    expected = watch.measure(bars[-NEW:], expected_positions[new], terms)
    alarm = watch.alarm_on(bars[-NEW:], terms.backtest(bars[-NEW:], expected_positions[new]), bars)
    assert alarm.statistic is not None
    assert watch_one(own).performance == expected.model_copy(update={"alarm": alarm})

    end_all_jobs(own)
    short = own.settings.model_copy(update={"watch": WatchRules(window_days=10)})
    seen = watch_one(replace(own, settings=short))
    assert (seen.new_bars, seen.performance.bars) == (NEW, 240)
    # the alarm takes all new bars, whatever the window
    expected = watch.measure(bars[-240:], expected_positions[-240:], terms)
    assert seen.performance == expected.model_copy(update={"alarm": alarm})


DEATH = 120 * 24
"""Bars with an edge, before bars that go against the edge."""


@pytest.fixture
def dying(tmp_path: Path) -> Market:
    """A market of which each return repeats the last, for 120 days; later each return reverts the last."""
    alive = a_market("DYINGUSD", DEATH, seed=1, momentum=0.6)
    dead = a_market("DYINGUSD", 40 * 24, seed=2, first=DEATH, momentum=-0.6)
    joined = {name: np.concatenate([getattr(alive, name), getattr(dead, name)]) for name in ("time", *FIELDS)}
    return Market(replace(alive, **joined), tmp_path)


def serve_momentum(services: Services) -> ModelVersion:
    follows = {"horizon": 1, "threshold": 0.0, "features": ["log_return_1"], "sizing": "none"}
    recipe: dict[str, Any] = {"plugin": "ridge", "symbol": "DYINGUSD", "dataset_span_days": 120}
    return serve(services, ModelType.OTHER, training_params=follows, **recipe)


def test_a_version_whose_edge_has_died_raises_the_alarm_and_asks_for_one_retrain(
    own: Services, dying: Market
) -> None:
    dying.lack(40 * 24)
    version = serve_momentum(own)
    dying.lack(20 * 24)
    assert watch_one(own).finding is HealthFinding.UNSURE
    end_all_jobs(own)
    dying.lack(0)
    watched = watch_one(own)
    alarm = watched.performance.alarm
    assert (watched.version, watched.finding, alarm.days) == (version.version, HealthFinding.DEGRADED, 40)
    assert alarm.raised_on_day is not None
    assert alarm.earlier_days == 0
    assert f"raised its alarm on day {alarm.raised_on_day} of 40" in watched.because
    assert answers(watched)[0] == (DEGRADED, Reply.ACCEPTED)

    # the alarm stands until the version is replaced, and its request is kept
    again = watch_one(own)
    assert (again.finding, again.because) == (watched.finding, watched.because)
    assert answers(again)[0] == (DEGRADED, Reply.COALESCED)
    kept = own.ledger.triggers.answers(version.model_id, Reply.ACCEPTED)[0]
    assert (kept.request.training.trigger_reason, kept.request.observed.alarm) == (DEGRADED, True)
    [alert] = own.alerts.lasting(AlertKind.DEGRADED)
    assert (alert.subject, watched.because in alert.message) == (version.model_id, True)
    own.promotions.halt(version.model_id, ADMIN, "drill", own.clock())
    assert watch.run(own).models == ()
    assert own.alerts.lasting(AlertKind.DEGRADED) == [], "nothing serves"


def test_the_alarm_runs_on_over_successive_versions_of_a_recipe(own: Services, dying: Market) -> None:
    dying.lack(40 * 24)
    first = serve_momentum(own)
    dying.lack(21 * 24)
    second = serve_momentum(own)
    assert second.recipe_digest == first.recipe_digest
    dying.lack(2 * 24)
    watched = watch_one(own)
    alarm = watched.performance.alarm
    # 19 days of its own are too few for a first look
    assert (watched.version, watched.performance.bars) == (second.version, 19 * 24)
    assert (alarm.days, alarm.earlier_days) == (38, 19)
    assert watched.finding is HealthFinding.DEGRADED, alarm
    assert "of the recipe's record (19 with earlier versions)" in watched.because


def test_drift_is_measured_on_the_features_of_the_model(own: Services, market: Market) -> None:
    serve(own)
    market.lack(0)
    assert watch_one(own).drift is None, "60 days hold too few fortnights to compare with"
    end_all_jobs(own)
    rules = WatchRules(drift_days=2, drift_score=1e-3, min_trades=10_000)
    quick = replace(own, settings=own.settings.model_copy(update={"watch": rules}))
    watched = watch_one(quick)
    assert watched.drift is not None
    assert watched.drift.stretches == (60 * 24 - LOOK_BACK) // 48
    assert set(watched.drift.features) <= set(FEATURES) - CALENDAR
    assert answers(watched) == [(DRIFTED, Reply.ACCEPTED), (NEW_BARS, Reply.COALESCED)]
    evidence = watched.asked[0].request.observed
    assert watched.prediction_drift is not None
    assert watched.error_drift is not None
    assert watched.error_drift.observations == NEW // 24
    assert evidence.drift_score == max(watched.drift.score, watched.prediction_drift.score)
    assert set(evidence.drifted) == {*watched.drift.features, PREDICTION}

    history = drift_history(quick, watched.model_id, 30)
    assert (history.version, history.newest_day) == (watched.version, quick.clock().date())
    # a market without closures has no opening gaps, which never vary
    named = (set(FEATURES) - CALENDAR - {"opening_gap"}) | {PREDICTION}
    assert {each.name for each in history.features if not each.name.startswith(SHAP)} == named
    used = {each.name.removeprefix(SHAP) for each in history.features} - named
    assert used <= CALENDAR
    assert watched.usage_drift is not None
    assert {each.name for each in watched.usage_drift.by_feature} <= {SHAP + name for name in FEATURES}
    assert {each.name for each in history.features if each.drifted} == set(watched.discoveries)
    assert [each.subject for each in own.alerts.lasting(AlertKind.DRIFTED)] == [watched.model_id]
    again = watch_one(quick)
    assert again.discoveries == watched.discoveries, "a day is measured once"
    assert again.usage_drift is None
    assert all(len(each.measurements) == 1 for each in drift_history(quick, watched.model_id, 30).features)
    assert watch_one(own).drift is None
    assert own.alerts.lasting(AlertKind.DRIFTED) == []


def test_a_model_that_cannot_be_checked_leaves_the_rest_to_run_and_is_alerted_until_repaired(
    own: Services,
    market: Market,
    prefect_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = serve(own)
    well = serve(own, ModelType.XGBOOST)
    market.lack(0)
    monkeypatch.setattr("clm_core.services._current", own)
    flow = load_flow("flows.watch.watch")
    stored = trees(own, broken)
    content = stored.read_bytes()
    stored.write_bytes(content + b"\n")
    with pytest.raises(
        PassIncomplete, match=rf"{broken.model_id}@{broken.version}: .*trees\.txt was changed"
    ):
        flow()
    markdown = page(prefect_url)
    assert f"| {well.model_id} | {well.version} |" in markdown
    assert f"- {broken.model_id}@{broken.version}: " in markdown
    assert " was accepted as job " in markdown
    assert [alert.subject for alert in own.alerts.lasting(AlertKind.MAINTENANCE_FAILING)] == ["watch"]
    stored.write_bytes(content)
    report = flow()
    assert [each.model_id for each in report.models] == [broken.model_id, well.model_id]
    assert own.alerts.lasting(AlertKind.MAINTENANCE_FAILING) == []
    # the bars are years old, and one alert is about the market of both models
    [stale] = own.alerts.lasting(AlertKind.STALE_BARS)
    assert stale.subject == "BTCUSD 1h"
    assert broken.model_id in stale.message
    assert "to an old market" in stale.message
    assert all(each.is_stale for each in report.models)
    assert f"| {broken.model_id} | {broken.version} |" in page(prefect_url)


def trees(services: Services, version: ModelVersion) -> Path:
    client = services.registry._client
    source = client.get_model_version(version.model_id, str(version.mlflow_version)).source
    [path] = Path(services.settings.home, "mlflow").rglob(f"*{source.removeprefix('models:/')}*/**/trees.txt")
    return path


def page(prefect_url: str) -> str:
    markdown: str = httpx.get(f"{prefect_url}/artifacts/watch/latest").json()["data"]
    return markdown


def test_the_command_prints_a_table_or_json_and_exits_with_1_on_problems(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    answer = CliRunner().invoke(app, ["watch", "--json"])
    report = WatchReport.model_validate_json(answer.stdout)
    assert answer.exit_code == (1 if report.problems else 0)
    assert report.headline in CliRunner().invoke(app, ["watch"]).stdout.replace("\n", " ")


def test_a_row_shows_the_age_and_the_new_bars(own: Services, market: Market) -> None:
    version = serve(own)
    market.lack(0)
    report = watch.run(own)
    assert WatchReport.model_validate_json(report.model_dump_json()) == report
    [row] = report.rows()
    assert (row["model"], row["new bars"], row["age"]) == (version.model_id, "950", "0.0 d")
    assert report.headline == "Models watched: 1. Retrains requested: 1 accepted."


@pytest.mark.parametrize(
    ("position", "trades", "sharpe"),
    [(0.0, 0, 0.0), (1.0, 0, None)],
    ids=["never trades", "holds to the end"],
)
def test_a_position_open_at_the_end_is_not_a_closed_trade(
    position: float, trades: int, sharpe: float | None, services: Services
) -> None:
    bars = services.market.bars("BTCUSD", "1h", closed_by=services.clock())[-500:]
    seen = watch.measure(bars, np.full(500, position), MarketTerms(TradingTerms()))
    assert (seen.bars, seen.trades) == (500, trades)
    assert seen.sharpe_ratio is not None
    if sharpe is not None:
        assert seen.sharpe_ratio == sharpe


def test_without_new_bars_nothing_is_measured(services: Services) -> None:
    bars = services.market.bars("BTCUSD", "1h", closed_by=services.clock())[:0]
    assert watch.measure(bars, np.zeros(0), MarketTerms(TradingTerms())) == watch.Performance()
