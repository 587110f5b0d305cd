"""Protection of production versions: rolled back, halted or frozen by the watch."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from clm_core.decisions.gate_policy import Levels
from clm_core.decisions.protection import ProtectionAction, ProtectionTrigger
from clm_core.domain.actors import PROTECTION, SYSTEM, Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.promotions import Promotion, PromotionKind
from clm_core.domain.triggers import Reply
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role, TriggerReason
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.promotions import PromotionStore
from clm_core.lifecycle import watch
from clm_core.lifecycle.live import live_section
from clm_core.lifecycle.watch import WatchedVersion
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.registry.promotion import Promotions
from clm_core.retraining import jobs, promoting, steps
from clm_core.services import Services

ADMIN = Actor(name="ada", role=Role.ADMIN)
EAGER = {"rounds": 20, "threshold": 0, "learning_rate": 0.3, "min_child_weight": 1, "sizing": "none"}
MODEL = "lightgbm_btcusd_1h"
ANYTHING_PASSES = {
    "min_sharpe_ratio": -1e9,
    "min_win_rate": 0.0,
    "min_profit_factor": 0.0,
    "max_drawdown": 1.0,
    "min_trades": 0,
}
TIGHT = {"max_drawdown": 0.001}
"""A hard stop that any strategy reaches within days."""


class Life:
    """A model that lives through time: bars arrive, and the clock stands at the close of the newest."""

    def __init__(self, services: Services, engine: Engine, home: Path) -> None:
        self._bars = services.market.bars("BTCUSD", "1h", closed_by=services.clock())
        self._store = SeriesStore(home / "data")
        self._count = 0
        market = MarketData(home)
        settings = services.settings.model_copy(update={"walk_forward": WalkForwardPlan(folds=2)})
        self.services = replace(
            services,
            settings=settings,
            promotions=Promotions(services.ledger, services.registry, None),
            alerts=AlertStore(engine),
            open_market=lambda: market,
            clock=self.now,
        )
        self.rules()
        self.live(len(self._bars) - 900)

    def now(self) -> datetime:
        end: datetime = self._bars[: self._count].end.to_pydatetime()
        return end + timedelta(hours=1)

    def live(self, bars: int) -> None:
        self._count += bars
        self._store.add(self._bars[: self._count], "tests", self.now())

    def rules(self, **protection: Any) -> None:
        """A gate that every version passes, and levels of the protection."""
        lenient = Levels(preset="thresholds-only", criteria=ANYTHING_PASSES, protection=protection)
        document = self.services.policies.model_copy(update={"models": {MODEL: lenient}})
        self.services = replace(self.services, policies=document)

    def serve(self, seed: int, by: Actor = ADMIN, **params: Any) -> ModelVersion:
        """A model that trades often, in production."""
        services = self.services
        fields = {
            "model_type": ModelType.LIGHTGBM,
            "symbol": "BTCUSD",
            "dataset_span_days": 60,
            "training_params": EAGER | params,
            "seed": seed,
            "requested_by": "tests",
        }
        job = jobs.open_job(services, RetrainRequest.model_validate(fields))
        with jobs.running(services, job) as lease:
            bars = steps.fetch_bars(services, job)
            trained = steps.train(services, job, bars)
            version = steps.register(services, lease, job, bars, trained)
            steps.judge(
                services,
                lease,
                version,
                steps.evaluate_out_of_sample(services, lease, job, bars, trained),
            )
        promoting.promote(services, MODEL, version.version, by, "tested")
        return version

    def watch(self) -> WatchedVersion:
        report = watch.run(self.services)
        assert report.problems == ()
        [watched] = report.models
        return watched

    def alerts(self) -> list[AlertKind]:
        return [alert.kind for alert in self.services.alerts.newest()]


@pytest.fixture
def life(clm: Services, engine: Engine, tmp_path: Path) -> Life:
    return Life(clm, engine, tmp_path)


def test_a_hard_stop_rolls_back_to_the_version_before_and_halts_without_one(
    life: Life, check: Callable[[str], None]
) -> None:
    first = life.serve(3)
    second = life.serve(4)
    life.rules(**TIGHT)
    fresh = life.watch()
    assert fresh.protection is not None
    assert (fresh.protection.bars, fresh.protection.action) == (0, ProtectionAction.KEEP)
    life.live(200)

    watched = life.watch()
    protection = watched.protection
    assert protection is not None
    assert protection.drawdown is not None
    assert protection.drawdown > 0.001
    assert protection.bars == 200
    assert protection.years_to_hard_stop is not None
    assert (protection.action, protection.trigger) == (
        ProtectionAction.ROLL_BACK,
        ProtectionTrigger.HARD_STOP,
    )
    assert protection.target == first.version
    change = life.services.ledger.promotions.committed(MODEL)[-1]
    assert (change.kind, change.from_version, change.to_version) == (
        PromotionKind.ROLLBACK,
        second.version,
        first.version,
    )
    assert change.by == PROTECTION
    assert "hard stop" in change.reason
    assert AlertKind.PROTECTION_ROLLED_BACK in life.alerts()
    [answer] = [
        each
        for each in watched.asked
        if each.request.training.trigger_reason is TriggerReason.PERFORMANCE_DEGRADED
    ]
    assert answer.request.observed.alarm
    assert answer.request.training.seed == 3
    assert answer.job_id is not None
    origin = f"{first.version}: in production again, after {second.version} was taken back"
    assert life.services.ledger.job(answer.job_id).recipe_from == origin

    section = live_section(life.services, second)
    assert section.sentences[0].startswith("Rolled back ")
    assert "hard stop" in section.sentences[0]
    # the out-of-sample bars of a training of 60 days
    assert "fewer than 60 days" in section.sentences[-1]

    life.live(300)
    again = life.watch()
    assert again.version == first.version
    assert again.protection is not None
    assert again.protection.bars == 300
    assert again.protection.action is ProtectionAction.HALT
    assert life.services.ledger.promotions.champion(MODEL) is None
    assert AlertKind.MODEL_HALTED in life.alerts()
    assert life.services.ledger.version(MODEL, first.version).status is ModelStatus.RETIRED
    [answer] = [each for each in again.asked if each.request.observed.alarm]
    assert answer.request.training.training_params == {}
    assert answer.request.recipe_from is not None
    assert answer.request.recipe_from.startswith(f"defaults: {first.version} was taken back")


def test_the_time_to_a_hard_stop_is_estimated_from_20_bars_on_and_an_old_version_is_trained_anew(
    life: Life,
) -> None:
    version = life.serve(3)
    years = []
    for bars in (19, 1):
        life.live(bars)
        protection = life.watch().protection
        assert protection is not None
        assert protection.drawdown is not None
        years.append(protection.years_to_hard_stop)
    assert years[0] is None
    assert years[1] is not None

    life.rules(max_serving_days=0.5)
    watched = life.watch()
    assert watched.protection is not None
    assert (watched.protection.action, watched.protection.trigger) == (
        ProtectionAction.HALT,
        ProtectionTrigger.EXPIRED,
    )
    [answer] = watched.asked
    assert (answer.request.training.trigger_reason, answer.reply) == (TriggerReason.PERIODIC, Reply.ACCEPTED)
    # age alone takes no recipe back
    assert answer.request.training.training_params["rounds"] == EAGER["rounds"]
    origin = f"{version.version}: the newest version that served and was not taken back"
    assert answer.request.recipe_from == origin


def test_the_watch_records_the_equity_since_the_promotion(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = life.serve(3)
    life.live(300)
    reads = list[str]()
    committed = PromotionStore.committed

    def counted(store: PromotionStore, model_id: str) -> list[Promotion]:
        reads.append(model_id)
        return committed(store, model_id)

    monkeypatch.setattr(PromotionStore, "committed", counted)
    watched = life.watch()
    protection = watched.protection
    assert protection is not None
    # once for all measurements, and once more for the recipe of the retrains requested
    assert reads == [MODEL] * (1 + bool(watched.asked))
    standing = life.services.ledger.standings.newest()[MODEL]
    assert (standing.version, standing.since, standing.bars) == (version.version, protection.since, 300)
    assert standing.total_return == pytest.approx(protection.total_return)
    assert standing.drawdown == protection.drawdown
    assert (standing.equity[0].days, standing.equity[0].equity) == (0.0, 1.0)
    assert standing.equity[-1].days == pytest.approx(300 / 24)
    assert protection.sentence in standing.sentences
    # a walk-forward of fewer than 60 days has no band
    assert (standing.band, standing.expected) == ((), None)


def test_a_target_that_cannot_serve_is_alerted_before_it_is_needed_and_halts_the_model(life: Life) -> None:
    first = life.serve(3)
    second = life.serve(4)
    life.services.registry._client.delete_model_version(MODEL, str(first.mlflow_version))
    watched = life.watch()
    assert watched.protection is not None
    assert watched.protection.target_problem is not None
    assert AlertKind.ROLLBACK_TARGET_UNUSABLE in life.alerts()
    life.rules(**TIGHT)
    life.live(200)
    protection = life.watch().protection
    assert protection is not None
    assert protection.action is ProtectionAction.HALT
    assert first.version in protection.reasons[-1]
    assert life.services.ledger.promotions.committed(MODEL)[-1].from_version == second.version


def test_refreshes_do_not_hide_the_losses_of_a_recipe(life: Life) -> None:
    other = life.serve(3, rounds=10)
    first = life.serve(3, by=SYSTEM)
    life.live(200)
    alone = life.watch().protection
    assert alone is not None
    assert (alone.recipe_since, alone.recipe_drawdown) == (None, None)
    refresh = life.serve(3, by=SYSTEM)
    life.live(24)
    watched = life.watch().protection
    assert watched is not None
    assert watched.drawdown is not None
    assert watched.recipe_drawdown is not None
    assert watched.action is ProtectionAction.KEEP
    assert watched.bars == 24
    assert (watched.recipe_since, watched.recipe_versions) == (alone.since, 2)
    assert "its recipe in 2 versions" in watched.sentence
    # the refresh is followed from its first bar on, and the version before up to there
    assert watched.recipe_drawdown >= max(alone.drawdown or 0.0, watched.drawdown)

    life.rules(max_drawdown=(watched.drawdown + watched.recipe_drawdown) / 2)
    protection = life.watch().protection
    assert protection is not None
    assert protection.target == first.version
    assert (protection.action, protection.trigger) == (
        ProtectionAction.ROLL_BACK,
        ProtectionTrigger.HARD_STOP,
    )
    assert "since the recipe came into production, 2 versions ago" in protection.reasons[0]
    change = life.services.ledger.promotions.committed(MODEL)[-1]
    assert (change.from_version, change.to_version) == (refresh.version, other.version)


def test_a_recipe_without_another_recipe_before_is_halted_and_not_repeated(life: Life) -> None:
    life.serve(3)
    life.live(200)
    life.serve(3, by=SYSTEM)
    life.live(24)
    watched = life.watch().protection
    assert watched is not None
    life.rules(max_drawdown=((watched.drawdown or 0.0) + (watched.recipe_drawdown or 0.0)) / 2)
    halted = life.watch()
    assert halted.protection is not None
    assert halted.protection.action is ProtectionAction.HALT
    assert "no earlier version of another recipe was in production" in halted.protection.reasons
    assert life.services.ledger.promotions.champion(MODEL) is None
    [answer] = [each for each in halted.asked if each.request.observed.alarm]
    assert answer.request.training.training_params == {}
