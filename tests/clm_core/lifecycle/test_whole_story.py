"""Life of a model from a message about drift to a rollback, with real trainings and servers.

The production version reads the location of the close in its bar. A drift monitor asks for a version that
reads the volume, whose edge grows while the version is in shadow and turns over while it is in production.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from alert_receivers import AlertReceiver, alert_receiver
from changing_markets import START, Phase, changing_market
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from pydantic import SecretStr
from sqlalchemy import Engine

from clm_core.decisions.gate_policy import load_document
from clm_core.decisions.protection import ProtectionAction, ProtectionTrigger
from clm_core.domain.actors import PROTECTION, SYSTEM, Actor
from clm_core.domain.evaluations import CheckStatus, Decision, Verdict
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.operation_settings import AlertSettings
from clm_core.domain.promotions import PromotionKind
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import Reply
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, Role, TriggerReason
from clm_core.domain.watch_rules import WatchRules
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.receivers import ReceiverStore
from clm_core.lifecycle import shadow
from clm_core.lifecycle.watch import WatchedVersion
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Timeframe
from clm_core.operations import delivery
from clm_core.platform.prefect_server import load_flow
from clm_core.registry.promotion import Promotions
from clm_core.retraining import promoting
from clm_core.services import Services
from clm_core.triggers import inbox

ADA = Actor(name="ada", role=Role.OPERATOR)
SYMBOL = "STORYUSD"
MODEL = "lightgbm_storyusd_1d"
TRAINING_DAYS = 1500
PHASES = (
    Phase(days=TRAINING_DAYS, of_location=0.32, of_volume=0.3),
    Phase(days=116, of_location=0.15, of_volume=2.0),
    Phase(days=60, of_location=0.32, of_volume=-2.0),
)
SEED = 59
"""Seed at which the walk-forward on the volume is good and not yet proof."""
TREES = {"rounds": 20, "horizon": 1, "learning_rate": 0.3, "min_child_weight": 20, "sizing": "none"}
BY_LOCATION = TREES | {"features": ["close_location"]}
BY_VOLUME = TREES | {"features": ["volume_z_24"]}
COMPARED_AFTER = 100
"""Days in shadow before the lead over the champion can be told."""
DAY = timedelta(days=1)


class Story:
    """A model on a market whose bars arrive day by day; the clock stands at the close of the newest."""

    def __init__(self, clm: Services, engine: Engine, home: Path, alerts_to: str) -> None:
        self._bars = changing_market(SYMBOL, PHASES, SEED)
        self._store = SeriesStore(home / "data")
        self._days = 0
        market = MarketData(home)
        # a retrain for new bars or for its age would take the place of the version in the story
        patient = TriggerPolicy(max_age_days=1000, min_new_samples=1000)
        # as would one for the regime of a market that changes on purpose
        rules = WatchRules(regime_changes=False)
        settings = {
            "alerts": AlertSettings(urls=(SecretStr(alerts_to),)),
            "triggers": patient,
            "watch": rules,
        }
        self.services = replace(
            clm,
            settings=clm.settings.model_copy(update=settings),
            promotions=Promotions(clm.ledger, clm.registry, None),
            alerts=AlertStore(engine),
            receivers=ReceiverStore(engine),
            policies=load_document(),
            open_market=lambda: market,
            clock=self.now,
        )
        self.live(TRAINING_DAYS)

    def now(self) -> datetime:
        return START + self._days * DAY

    def live(self, days: int) -> None:
        arrived = self._bars[self._days : self._days + days]
        self._days += days
        self._store.add(arrived, "tests", self.now())

    def serve_first(self) -> ModelVersion:
        """A version by the location of the close, which passes the gate and is promoted by a person."""
        request = RetrainRequest(
            model_type=ModelType.LIGHTGBM,
            symbol=SYMBOL,
            timeframe="1d",
            dataset_span_days=TRAINING_DAYS,
            training_params=BY_LOCATION,
            requested_by="ada",
        )
        result = load_flow("flows.retrain.retrain")(request)
        assert result.verdict.decision is Decision.PASS, result.verdict.reasons
        version: ModelVersion = result.version
        promoting.promote(self.services, MODEL, version.version, ADA, "passed")
        return version

    def receive_drift(self) -> None:
        data = {
            "model_type": "lightgbm",
            "symbol": SYMBOL,
            "timeframe": "1d",
            "detector": "psi",
            "score": 0.4,
            "training_params": BY_VOLUME,
        }
        body = json.dumps({"type": "model.drift_detected", "data": data}).encode()
        inbox.receive(self.services, "monitor", "evt_1", body, self.now())

    def dispatch(self) -> UUID:
        """Run of the newest job of the model in Prefect, after a dispatch."""
        load_flow("flows.dispatch.dispatch")()
        job = self.services.ledger.jobs(model_id=MODEL, limit=1)[0]
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(limit=200)
        [run] = [run.id for run in runs if run.idempotency_key == str(job.id)]
        return run

    def record(self) -> None:
        report = shadow.run(self.services, timeframe=Timeframe.D1)
        assert report.problems == ()
        # the champion's first bars closed before the first pass
        assert all(each.late <= (each.status is ModelStatus.PRODUCTION) for each in report.versions)

    def decide(self) -> ShadowDecision:
        followed = load_flow("flows.shadow.shadow")(Timeframe.D1).versions
        [shadowed] = [each for each in followed if each.status is not ModelStatus.PRODUCTION]
        assert shadowed.decision is not None
        decision: ShadowDecision = shadowed.decision
        return decision

    def followed(self) -> list[str]:
        return [each.version for each in load_flow("flows.shadow.shadow")(Timeframe.D1).versions]

    def watch(self) -> WatchedVersion:
        [watched] = load_flow("flows.watch.watch")().models
        assert watched.protection is not None
        return watched

    def status(self, version: ModelVersion) -> ModelStatus:
        return self.services.ledger.version(MODEL, version.version).status

    def require_newest_job(self, job_id: UUID | None, repeats: ModelVersion, features: Any) -> None:
        """The newest job repeats the recipe of a version that a rollback put back."""
        [job] = self.services.ledger.jobs(model_id=MODEL, limit=1)
        assert (job.id, job.training_params["features"]) == (job_id, features)
        assert str(job.recipe_from).startswith(f"{repeats.version}: in production again")

    def require_serving(self, version: ModelVersion, instead_of: ModelVersion) -> None:
        assert (self.status(version), self.status(instead_of)) == (
            ModelStatus.PRODUCTION,
            ModelStatus.RETIRED,
        )
        assert self.services.registry.aliased(MODEL, "production") == version.mlflow_version

    def changes(self) -> list[tuple[PromotionKind, str, str | None, str | None]]:
        committed = self.services.ledger.promotions.committed(MODEL)
        return [(each.kind, each.actor, each.from_version, each.to_version) for each in committed]


def work(run_id: UUID) -> Any:
    """Result of a run that Prefect has scheduled, as a worker would run it."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
    return run_flow(load_flow("flows.retrain.retrain"), flow_run=run, parameters=run.parameters)


def missed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.status is CheckStatus.MISSED]


def delivered(receiver: AlertReceiver) -> list[str]:
    """Alerts on the model, without their numbers."""
    return [title.partition(": ")[2] for title in receiver.titles if MODEL in title]


@pytest.fixture
def receiver() -> Iterator[AlertReceiver]:
    with alert_receiver() as received:
        yield received


@pytest.fixture
def story(
    clm: Services,
    engine: Engine,
    tmp_path: Path,
    receiver: AlertReceiver,
    on_demand: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Story:
    made = Story(clm, engine, tmp_path, receiver.url)
    monkeypatch.setattr("clm_core.services._current", made.services)
    return made


@pytest.fixture
def on_demand(prefect_url: str) -> Iterator[None]:
    """Deployment of the flow `retrain` without a worker."""
    with httpx.Client(base_url=prefect_url) as client:
        flow = client.post("/flows/", json={"name": "retrain"}).json()
        made = client.post("/deployments/", json={"name": "on-demand", "flow_id": flow["id"]})
        yield
        client.delete(f"/deployments/{made.json()['id']}")


def test_a_version_is_shadowed_promoted_and_rolled_back_without_a_person(
    story: Story, receiver: AlertReceiver
) -> None:
    services = story.services
    first = story.serve_first()
    story.live(1)
    story.receive_drift()
    result = work(story.dispatch())
    second: ModelVersion = result.version
    job = services.ledger.job(second.training_job_id)
    assert (job.trigger_reason, job.status) == (TriggerReason.DRIFT_DETECTED, JobStatus.COMPLETED)
    assert result.verdict.decision is Decision.INCONCLUSIVE
    assert missed(result.verdict) == ["deflated_sharpe_ratio", "shadow_lead_bps"]
    assert story.status(second) is ModelStatus.SHADOW

    story.live(2)
    decision = story.decide()
    assert decision.action is ShadowAction.CONTINUE
    assert "deflated Sharpe ratio" in decision.reasons[0]
    # a position is in time up to the close of the next bar
    for _ in range(COMPARED_AFTER // 2 - 1):
        story.live(2)
        story.record()
    days = COMPARED_AFTER
    while decision.action is ShadowAction.CONTINUE:
        story.live(2)
        days += 2
        decision = story.decide()
    assert (decision.action, decision.waits_for) == (ShadowAction.PROMOTE, "")
    assert decision.reasons[0].startswith(f"better than champion {first.version}: at least ")
    assert decision.figures.bars == days - 1
    story.require_serving(second, instead_of=first)
    delivery.deliver(services)
    promoted = [f"low score, {MODEL}@{second.version}", f"promoted, {MODEL}"]
    assert delivered(receiver) == promoted

    watched = story.watch()
    while watched.protection.action is ProtectionAction.KEEP:
        assert watched.asked == ()
        story.live(8)
        watched = story.watch()
    protection = watched.protection
    assert (protection.action, protection.trigger, protection.target) == (
        ProtectionAction.ROLL_BACK,
        ProtectionTrigger.HARD_STOP,
        first.version,
    )
    assert story.changes() == [
        (PromotionKind.PROMOTION, ADA.name, None, first.version),
        (PromotionKind.PROMOTION, SYSTEM.name, first.version, second.version),
        (PromotionKind.ROLLBACK, PROTECTION.name, second.version, first.version),
    ]
    story.require_serving(first, instead_of=second)

    delivery.deliver(services)
    assert delivered(receiver) == [*promoted, f"protection rolled back, {MODEL}"]

    [answer] = watched.asked
    assert (answer.reply, answer.request.training.trigger_reason) == (
        Reply.ACCEPTED,
        TriggerReason.PERFORMANCE_DEGRADED,
    )
    # the recipe on the volume was taken back
    story.require_newest_job(answer.job_id, first, BY_LOCATION["features"])
    assert story.dispatch()

    story.live(2)
    assert story.followed() == [first.version]
    assert story.watch().version == first.version
    story.require_serving(first, instead_of=second)
    # a person may put the version back: its promotion passed the gate
    retired = services.ledger.version(MODEL, second.version)
    assert services.promotions.rollback_refusals(retired) == ()
