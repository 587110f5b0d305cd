"""A home with a history of weeks, for the picture of the home page: models that serve, wait and were halted.

CLM_HOME=NEW_HOME python scripts/shown_home.py; two minutes or so. The bars are made up and end now, and the
clock of each step stands at the close of a bar.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from clm_core.decisions.gate_policy import Levels
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason
from clm_core.lifecycle import allocation, shadow_decisions, watch
from clm_core.market.bars import Bars
from clm_core.market.planted import planted_bars
from clm_core.market.store import SeriesStore
from clm_core.retraining import jobs, promoting, steps
from clm_core.services import Services, open_services
from clm_core.settings import load_settings

TRAINED_DAYS = 840
"""Days of the market that `clm demo` plants."""
SERVED_DAYS = 48
PEOPLE = Actor(name="ada", role=Role.OPERATOR)
ANYTHING = {
    "min_sharpe_ratio": -1e9,
    "min_win_rate": 0.0,
    "min_profit_factor": 0.0,
    "max_drawdown": 1.0,
    "min_trades": 0,
}
HOUR = timedelta(hours=1)


class ShownHome:
    """Markets whose bars arrive as the clock is moved."""

    def __init__(self, services: Services) -> None:
        ends = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        begun = int((ends - (TRAINED_DAYS + SERVED_DAYS) * 24 * HOUR).timestamp() * 1e9)
        self._markets = {}
        for seed, symbol in enumerate(("PLANTED", "PLANTEDB", "PLANTEDC")):
            self._markets[symbol] = replace(_market(seed, begun), symbol=symbol)
        self._store = SeriesStore(services.settings.home / "data")
        self._ends = ends
        self._now = ends
        lenient = Levels(preset="thresholds-only", criteria=ANYTHING, protection={"max_drawdown": 0.02})
        careful = Levels(lifecycle={"refresh": "approval"})
        patient = lenient.model_copy(update={"protection": {}})
        rules = {
            "lightgbm_plantedc_1h": lenient,
            "xgboost_planted_1h": careful,
            "xgboost_plantedb_1h": patient,
        }
        policies = services.policies.model_copy(update={"models": rules})
        self.services = replace(services, policies=policies, clock=lambda: self._now)

    def arrive(self, days_ago: float) -> None:
        """Move the clock, and store the bars closed by then."""
        self._now = self._ends - timedelta(days=days_ago)
        for bars in self._markets.values():
            closed = bars.row_closed_after(self._now)
            self._store.add(bars[:closed], "scripts/shown_home.py", self._now)

    def train(self, model_type: ModelType, symbol: str, **params: object) -> ModelVersion:
        request = RetrainRequest(
            model_type=model_type,
            symbol=symbol,
            dataset_span_days=TRAINED_DAYS,
            trigger_reason=TriggerReason.PERIODIC,
            training_params=params,
            requested_by="schedule",
        )
        services = self.services
        job = jobs.open_job(services, request)
        with jobs.running(services, job) as lease:
            bars = steps.fetch_bars(services, job)
            trained = steps.train(services, job, bars)
            version = steps.register(services, lease, job, bars, trained)
            steps.judge(
                services, lease, version, steps.evaluate_out_of_sample(services, lease, job, bars, trained)
            )
        print(services.ledger.version(version.model_id, version.version).status, version.model_id)
        return version

    def promote(self, version: ModelVersion, by: Actor, reason: str) -> None:
        promoting.promote(self.services, version.model_id, version.version, by, reason)


def _market(seed: int, begun: int) -> Bars:
    """A planted market that goes on after the training, from a moment in nanoseconds on."""
    trained = planted_bars(TRAINED_DAYS * 24, seed)
    served = planted_bars(SERVED_DAYS * 24, seed + 100)
    scale = trained.close[-1] / served.open[0]
    prices = {
        name: np.concatenate([getattr(trained, name), scale * getattr(served, name)])
        for name in ("open", "high", "low", "close")
    }
    volume = np.concatenate([trained.volume, served.volume])
    time = begun + np.arange(len(volume)) * trained.timeframe.nanoseconds
    return replace(trained, time=time, volume=volume, **prices)


def main() -> None:
    with open_services(load_settings()) as services:
        home = ShownHome(services)
        home.arrive(days_ago=SERVED_DAYS)
        eager = {"rounds": 20, "threshold": 0, "learning_rate": 0.3, "min_child_weight": 1, "sizing": "none"}
        first = home.train(ModelType.XGBOOST, "PLANTED")
        home.promote(first, PEOPLE, "passed, first of its model")
        halted = home.train(ModelType.LIGHTGBM, "PLANTEDC", **eager)
        home.promote(halted, PEOPLE, "to be watched")
        home.arrive(days_ago=20)
        second = home.train(ModelType.XGBOOST, "PLANTED", max_depth=3)
        reason = "shared while the approval waits"
        allocation.start(home.services, second.model_id, [second.version], PEOPLE, reason)
        home.arrive(days_ago=75 / 24)
        home.train(ModelType.XGBOOST, "PLANTEDB")
        for hours in range(74, -1, -1):
            home.arrive(days_ago=hours / 24)
            if hours % 24 < 2:
                report = shadow_decisions.run(home.services)
                print(report.headline, *report.problems)
        for _ in range(2):
            report = watch.run(home.services)
            print(report.headline, *report.problems)
        print(f"A history in {services.settings.home}")


if __name__ == "__main__":
    main()
