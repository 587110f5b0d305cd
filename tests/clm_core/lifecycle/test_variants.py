"""Variants of a weak production version: proposed by the watch, measured alike, the best one requested."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import promoting
import pytest
from jobs import end_all_jobs
from panels import a_market
from sqlalchemy import Engine, text

from clm_core.decisions.health import HealthFinding
from clm_core.domain.actors import Actor
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.listings import CandidateQuery
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.variants import ProposedVariants
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import CandidateOrigin, JobStatus, ModelType, Role, TriggerReason
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.ledger.alerts import AlertStore
from clm_core.lifecycle import candidates, variants, watch
from clm_core.lifecycle.watch import WatchedVersion
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.models import catalog
from clm_core.registry.promotion import Promotions
from clm_core.retraining import jobs, steps
from clm_core.services import Services

ADMIN = Actor(name="ada", role=Role.ADMIN)
WEAK = {"look_back": 20, "stop_loss": 0.03, "threshold": 0.02}
BARS = 4000
NEW = 1000
EVOLVED = TriggerReason.STRATEGY_EVOLUTION


class Market:
    """A market whose newest bars arrive on demand."""

    def __init__(self, home: Path) -> None:
        self._bars = a_market("WEAKUSD", BARS, seed=4, momentum=0.05)
        self._store = SeriesStore(home / "data")
        self.data = MarketData(home)

    def lack(self, bars: int) -> None:
        come = self._bars[: BARS - bars]
        self._store.add(come, "tests", come.end.to_pydatetime() + timedelta(hours=1))


@pytest.fixture
def market(tmp_path: Path) -> Market:
    market = Market(tmp_path)
    market.lack(NEW)
    return market


@pytest.fixture
def own(clm: Services, engine: Engine, market: Market) -> Services:
    """Services with a separate ledger and market, by which no version is good enough."""
    settings = clm.settings.model_copy(
        update={
            "walk_forward": WalkForwardPlan(folds=2),
            "triggers": TriggerPolicy(max_sharpe_ratio=50, min_new_samples=10_000),
        }
    )
    return replace(
        clm,
        settings=settings,
        promotions=Promotions(clm.ledger, clm.registry, None),
        alerts=AlertStore(engine),
        open_market=lambda: market.data,
    )


def serve(services: Services, **changes: Any) -> ModelVersion:
    """A rule in production, promoted against the verdict of the gate."""
    fields: dict[str, Any] = {
        "model_type": "momentum",
        "symbol": "WEAKUSD",
        "dataset_span_days": 150,
        "training_params": WEAK,
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


def proposed_for(services: Services) -> tuple[ProposedVariants, list[StrategyCandidate]]:
    [proposed] = services.ledger.variants.unanswered()
    known = services.ledger.candidates.known(proposed.candidates)
    return proposed, [known[each] for each in proposed.candidates]


def requested(services: Services) -> list[Any]:
    return [
        each for each in services.ledger.triggers.answers() if each.request.training.trigger_reason is EVOLVED
    ]


@pytest.fixture
def weak(own: Services, market: Market) -> tuple[Services, ModelVersion]:
    """A production version found weak, with variants proposed."""
    version = serve(own)
    market.lack(0)
    watched = watch_one(own)
    assert (watched.finding, watched.proposed) == (HealthFinding.UNSURE, 8)
    return own, version


Weak = tuple[Services, ModelVersion]


def test_the_watch_proposes_variants_of_a_weak_strategy_once(weak: Weak) -> None:
    own, version = weak
    proposed, (parent, *mutants) = proposed_for(own)
    assert (proposed.model_id, proposed.version) == (version.model_id, version.version)
    assert (parent.origin, parent.parents) == (CandidateOrigin.MANUAL, ())
    assert parent.params == own.ledger.job(version.training_job_id).training_params
    assert {each.origin for each in mutants} == {CandidateOrigin.MUTATION}
    assert {each.parents for each in mutants} == {(parent.id,)}
    assert all(each.awaits_evaluation for each in (parent, *mutants))
    changed = [
        {name: value for name, value in each.params.items() if parent.params.get(name) != value}
        for each in mutants
    ]
    assert changed[:3] == [{"look_back": 30}, {"stop_loss": 0.02}, {"threshold": 0.015}]
    assert watch_one(own).proposed == 0
    assert own.ledger.candidates.count_waiting() == 9
    assert requested(own) == [], "nothing is measured yet"


def test_every_candidate_is_published_as_an_event(weak: Weak, engine: Engine) -> None:
    own, _ = weak
    _, proposed = proposed_for(own)
    created = "SELECT payload->>'id' FROM outbox WHERE type = 'clm.strategy_candidate_created'"
    with engine.begin() as connection:
        published = set(connection.scalars(text(created)))
    assert {str(each.id) for each in proposed} <= published


def with_fitness(
    monkeypatch: pytest.MonkeyPatch, own: float | None, variant: float | None, better: int | None = None
) -> None:
    """Let the evaluation measure these values instead, the variant of a number one more."""

    def evaluate(services: Services, search: Any, waiting: list[StrategyCandidate], *_: Any) -> None:
        for number, each in enumerate(waiting):
            fitness = own if not each.parents else variant
            if better is not None and number == better and fitness is not None:
                fitness += 1.0
            services.ledger.candidates.evaluated(each.id, fitness)

    monkeypatch.setattr(variants, "evaluate", evaluate)


def test_every_candidate_is_a_counted_trial_and_the_best_goes_to_the_intake(weak: Weak) -> None:
    own, version = weak
    proposed, _ = proposed_for(own)
    report = candidates.run(own)
    assert report.problems == ()
    trials = own.ledger.trials.of_searches(version.model_id)
    assert len(trials) == len(report.evaluated) == 9
    [answer] = report.answers
    answered = own.ledger.variants.find(proposed.id)
    assert answered is not None
    assert answer == f"{version.model_id}@{version.version}: {answered.outcome}"
    parent, *mutants = [own.ledger.candidates.get(each) for each in proposed.candidates]
    assert parent.fitness_score is not None
    best = max(mutants, key=lambda each: each.fitness_score if each.fitness_score is not None else -99.0)
    assert best.fitness_score is not None
    assert best.fitness_score > parent.fitness_score
    [request] = requested(own)
    job = own.ledger.job(request.job_id)
    assert (answered.job_id, job.candidate_id, job.trigger_reason) == (job.id, best.id, EVOLVED)
    assert (job.requested_by, job.dataset_span_days) == ("evolution", 150)
    assert catalog.own_params(job.training_params) == catalog.own_params(best.params)
    assert str(job.recipe_from).startswith(f"candidate {best.id}: Sharpe ratio {best.fitness_score:.2f}")
    assert candidates.run(own).answers == ()
    assert len(requested(own)) == 1


@pytest.mark.parametrize(
    ("fitness", "because"),
    [
        (
            (0.5, 0.4),
            "the best of 8 variants has a Sharpe ratio of 0.40 out of sample, the own parameters 0.50",
        ),
        ((0.5, 0.5), "the own parameters 0.50"),
        ((None, 0.4), "the own parameters could not be measured"),
        ((0.5, None), "none of 8 variants could be measured"),
    ],
    ids=["worse", "equal", "own unmeasured", "variants unmeasured"],
)
def test_nothing_is_requested_without_a_better_variant_and_the_pass_says_so(
    weak: Weak, fitness: tuple[float | None, float | None], because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = weak
    with_fitness(monkeypatch, *fitness)
    report = candidates.run(own)
    assert because in report.answers[0]
    assert "no retrain was requested" in report.page()
    assert requested(own) == []
    assert own.ledger.variants.unanswered() == []
    assert watch_one(own).proposed == 0


def test_a_request_waits_for_a_pending_job_with_other_parameters(
    weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, version = weak
    with_fitness(monkeypatch, 0.5, 0.4, better=3)
    jobs.open_job(own, RetrainRequest(model_type="momentum", symbol="WEAKUSD", requested_by="ada"))  # type: ignore[arg-type]
    assert "waits for the end of the pending job" in candidates.run(own).answers[0]
    assert (len(own.ledger.variants.unanswered()), requested(own)) == (1, [])
    end_all_jobs(own)
    assert "was accepted as job" in candidates.run(own).answers[0]
    [request] = requested(own)
    assert own.ledger.job(request.job_id).model_id == version.model_id


class Killed(BaseException):
    """Stands for SIGKILL of the pass."""


def test_a_pass_killed_after_the_request_requests_nothing_again(
    weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = weak
    with_fitness(monkeypatch, 0.5, 0.4, better=3)
    store = type(own.ledger.variants)
    end: Callable[..., None] = store.end

    def die(*arguments: Any) -> None:
        raise Killed

    monkeypatch.setattr(store, "end", die)
    with pytest.raises(Killed):
        candidates.run(own)
    monkeypatch.setattr(store, "end", end)
    assert "was coalesced with job" in candidates.run(own).answers[0]
    first, second = sorted(requested(own), key=lambda each: each.number)
    assert first.job_id == second.job_id
    assert len(own.ledger.jobs(status=JobStatus.PENDING)) == 1


def test_the_oldest_two_are_measured_and_all_measured_ones_are_answered(weak: Weak) -> None:
    own, version = weak
    proposed, _ = proposed_for(own)
    named = [proposed.model_copy(update={"id": uuid4(), "candidates": (uuid4(),)}) for _ in range(4)]
    waiting = {each for proposed in named[:3] for each in proposed.candidates}
    assert candidates._next_measured(named, waiting) == [named[3], *named[:2]]
    assert own.ledger.variants.newest(version.model_id, 5) == [proposed]
    assert own.ledger.variants.newest("another", 5) == []


def test_variants_of_a_version_that_was_replaced_are_not_measured(weak: Weak) -> None:
    own, version = weak
    proposed, _ = proposed_for(own)
    own.promotions.halt(version.model_id, ADMIN, "drill", own.clock())
    [answer] = candidates.run(own).answers
    assert "is not in production any more" in answer
    left = own.ledger.candidates.known(proposed.candidates).values()
    assert {each.failure_cause for each in left} == {f"{version.version} is not in production any more"}
    assert own.ledger.trials.of_searches(version.model_id) == []


def test_a_healthy_version_and_a_job_that_no_search_can_vary_have_no_variants(
    weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, version = weak
    job = own.ledger.job(version.training_job_id)
    changed: tuple[dict[str, Any], ...] = (
        {"symbols": ("A", "B"), "data_snapshots": ("a", "b")},
        {"model_type": ModelType.ENSEMBLE, "plugin": None},
        {"plugin": "astrology"},
        {"training_params": {"look_back": -1}},
    )
    for changes in changed:
        other = job.model_copy(update=changes)
        with monkeypatch.context() as patch:
            patch.setattr(type(own.ledger), "job", lambda *_, other=other: other)
            assert variants.propose(own, version, HealthFinding.DEGRADED, "the alarm") is None
    assert variants.propose(own, version, HealthFinding.HOLDS, "well") is None
    assert variants.propose(own, version, HealthFinding.TOO_EARLY, "young") is None
    before = own.ledger.candidates.find(CandidateQuery(limit=100)).items
    proposal = variants.propose(own, version, HealthFinding.DEGRADED, "the alarm")
    assert proposal is not None, "another finding proposes again"
    assert len(own.ledger.candidates.find(CandidateQuery(limit=100)).items) == len(before) + 9


def test_parameters_found_by_evolution_keep_their_origin(weak: Weak, monkeypatch: pytest.MonkeyPatch) -> None:
    own, version = weak
    _, (_, mutant, *_) = proposed_for(own)
    job = own.ledger.job(version.training_job_id).model_copy(update={"candidate_id": mutant.id})
    monkeypatch.setattr(type(own.ledger), "job", lambda *_: job)
    proposal = variants.propose(own, version, HealthFinding.DEGRADED, "the alarm")
    assert proposal is not None
    parent = own.ledger.candidates.get(proposal.own)
    assert (parent.origin, parent.parents) == (CandidateOrigin.MUTATION, (mutant.id,))
