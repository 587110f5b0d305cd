"""Variants of a weak production version: proposed by the watch, measured by the pass over the candidates.

The watch records the candidates, at most once for each version and finding, and measures nothing. The pass
measures the version's own parameters and the variants alike, then requests a retrain with the best variant,
if better than the own parameters. The intake decides, by cooldown and budget.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from clm_core.decisions.health import HealthFinding
from clm_core.domain.actors import EVOLUTION
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.costs import Costs
from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.searches import Search, SearchRequest
from clm_core.domain.triggers import TriggerRequest
from clm_core.domain.variants import ProposedVariants
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import CandidateOrigin, ModelStatus, RuleFamily, TriggerReason
from clm_core.evolution.proposals import Changes, best_variant, propose_variants, seed_of
from clm_core.models import catalog
from clm_core.search.candidates import evaluate
from clm_core.search.request import search_fields
from clm_core.services import Services
from clm_core.triggers import intake

NAMESPACE = UUID("7c1c1f6e-2c39-4bb4-9f65-9b7d5d1a3e52")
WEAK = (HealthFinding.DEGRADED, HealthFinding.UNSURE)
"""Findings of a Sharpe ratio below the limit: with the alarm, or within the range of chance."""
MAX_PROPOSED = 2
"""Maximum number of versions whose variants are measured in a pass, the oldest first."""


def propose(
    services: Services, version: ModelVersion, finding: HealthFinding, because: str
) -> ProposedVariants | None:
    """Propose variants of a production version found weak.

    Returns:
        None for a healthy version, for variants proposed before, and for a model without parameters to vary:
        a pool, an ensemble, a kind that is not installed.
    """
    proposed_id = uuid5(NAMESPACE, f"{version.model_id}/{version.version}/{finding}")
    if finding not in WEAK or services.ledger.variants.find(proposed_id) is not None:
        return None
    job = services.ledger.job(version.training_job_id)
    now = services.clock()
    params = _typed_params(services, job)
    if params is None:
        return None
    search = _search(services, job, params, version, now)
    changes = _variants(search, version, now)
    if not changes:
        return None
    candidates = _candidates(services, proposed_id, search, job, [{}, *changes])
    proposed = ProposedVariants(
        id=proposed_id,
        model_id=version.model_id,
        version=version.version,
        because=because,
        search=search,
        candidates=tuple(each.id for each in candidates),
        opened_at=now,
    )
    # a watch under way beside this one has proposed the same
    return proposed if services.ledger.variants.open(proposed, candidates) else None


def _typed_params(services: Services, job: TrainingJob) -> dict[str, Any] | None:
    """Stored parameters of a job with typed values; None where no search can vary them."""
    kind = job.kind
    if job.symbols:
        return None
    installation = services.settings.execution.rules
    try:
        catalog.search_space(*kind)
        stored = catalog.stored_params(kind.model_type, job.training_params, kind.plugin, installation)
        described = catalog.recipe(kind.model_type, stored, Costs(), kind.plugin).describe()
    except (MissingExtra, ModelError):
        # not installed, without parameters to vary, or with parameters of an older release
        return None
    own = catalog.own_params(stored)
    return {name: described[name] if name in own else value for name, value in stored.items()}


def _variants(search: Search, version: ModelVersion, now: datetime) -> list[Changes]:
    """Changes of each variant; defaults follow from the costs of the market."""
    kind = search.kind
    recipe = catalog.recipe(kind.model_type, search.fixed, search.market_costs, kind.plugin)
    return propose_variants(
        catalog.search_space(*kind),
        recipe.describe(),
        is_rule=kind.plugin in list(RuleFamily),
        seed=seed_of(version.model_id, version.version, now.date()),
    )


def _search(
    services: Services, job: TrainingJob, params: Mapping[str, Any], version: ModelVersion, now: datetime
) -> Search:
    """Search over all bars of the version's span: the newest, on which the version is weak, count too."""
    request = SearchRequest(
        model_type=job.model_type,
        plugin=job.plugin,
        symbol=job.symbol,
        timeframe=job.timeframe,
        dataset_span_days=job.dataset_span_days,
        holdout=0.0,
        training_params=dict(params),
        seed=job.seed,
        requested_by=EVOLUTION.name,
    )
    return Search(
        **search_fields(request, params, services),
        name=f"{version.model_id}@{version.version}",
        fixed=dict(params),
        space={},
        created_at=now,
    )


def _candidates(
    services: Services, proposed_id: UUID, search: Search, job: TrainingJob, variants: list[Changes]
) -> list[StrategyCandidate]:
    """The own parameters as the parent, of their own origin, then the variants."""
    parent = None if job.candidate_id is None else services.ledger.candidates.get(job.candidate_id)
    every = [dict(search.fixed) | changes for changes in variants]
    ids = [uuid5(proposed_id, json.dumps(params, sort_keys=True)) for params in every]
    origin = CandidateOrigin.MANUAL if parent is None else parent.origin
    origins = [(origin, () if parent is None else (parent.id,))]
    origins += [(CandidateOrigin.MUTATION, (ids[0],))] * (len(every) - 1)
    return [
        StrategyCandidate(
            id=candidate_id,
            base_strategy=search.model_id,
            model_type=search.model_type,
            plugin=search.plugin,
            symbol=search.symbol,
            timeframe=search.timeframe,
            params=params,
            origin=came_by,
            parents=parents,
            awaits_evaluation=True,
            created_at=search.created_at,
        )
        for candidate_id, params, (came_by, parents) in zip(ids, every, origins, strict=True)
    ]


def measure(
    services: Services, proposed: ProposedVariants, workers: int | None, stop_at: datetime
) -> str | None:
    """Measure the waiting candidates of a version, and answer once all are measured.

    Returns:
        The answer in words; None while candidates wait.

    Args:
        workers: number of worker processes; None for one per processor.
        stop_at: moment from which on no candidate is begun.
    """
    if services.ledger.version(proposed.model_id, proposed.version).status is not ModelStatus.PRODUCTION:
        return _leave(services, proposed)
    waiting = [each for each in _known(services, proposed) if each.awaits_evaluation]
    if waiting:
        evaluate(services, lambda: proposed.search, waiting, workers, stop_at)
    own, *variants = _known(services, proposed)
    if any(each.awaits_evaluation for each in (own, *variants)):
        return None
    best = best_variant(own.fitness_score, [each.fitness_score for each in variants])
    if best is None:
        return _end(services, proposed, _nothing_better(own, variants))
    return _request(services, proposed, own, variants[best])


def _known(services: Services, proposed: ProposedVariants) -> list[StrategyCandidate]:
    known = services.ledger.candidates.known(proposed.candidates)
    return [known[each] for each in proposed.candidates]


def _leave(services: Services, proposed: ProposedVariants) -> str:
    because = f"{proposed.version} is not in production any more"
    for each in proposed.candidates:
        services.ledger.candidates.evaluated(each, None, because)
    return _end(services, proposed, f"no retrain was requested: {because}")


def _nothing_better(own: StrategyCandidate, variants: list[StrategyCandidate]) -> str:
    if own.fitness_score is None:
        return f"no retrain was requested: the own parameters could not be measured: {own.failure_cause}"
    measured = [each.fitness_score for each in variants if each.fitness_score is not None]
    if not measured:
        return f"no retrain was requested: none of {len(variants)} variants could be measured"
    return (
        f"no retrain was requested: the best of {len(variants)} variants has a Sharpe ratio of "
        f"{max(measured):.2f} out of sample, the own parameters {own.fitness_score:.2f}"
    )


def _request(
    services: Services, proposed: ProposedVariants, own: StrategyCandidate, best: StrategyCandidate
) -> str:
    """Request a retrain with the parameters of the best variant, unless another job is pending."""
    search = proposed.search
    training = RetrainRequest(
        model_type=best.model_type,
        plugin=best.plugin,
        symbol=best.symbol,
        timeframe=best.timeframe,
        dataset_span_days=search.dataset_span_days,
        trigger_reason=TriggerReason.STRATEGY_EVOLUTION,
        training_params=best.params,
        seed=search.seed,
        requested_by=EVOLUTION.name,
    )
    fitness = f"Sharpe ratio {best.fitness_score:.2f} out of sample, {own.fitness_score:.2f} with those"
    request = TriggerRequest(
        training=training,
        actor=EVOLUTION,
        source=EVOLUTION.name,
        key=f"variants/{proposed.id}",
        recipe_from=f"candidate {best.id}: {fitness} of {proposed.version}",
        candidate_id=best.id,
    )
    answer = intake.submit_unless_pending(services, request)
    if answer is None:
        return _of(proposed, f"the request with candidate {best.id} waits for the end of the pending job")
    outcome = f"a retrain with candidate {best.id} was {answer.sentence}"
    return _end(services, proposed, outcome, answer.job_id)


def _end(services: Services, proposed: ProposedVariants, outcome: str, job_id: UUID | None = None) -> str:
    services.ledger.variants.end(proposed.id, outcome, job_id, services.clock())
    return _of(proposed, outcome)


def _of(proposed: ProposedVariants, outcome: str) -> str:
    return f"{proposed.model_id}@{proposed.version}: {outcome}"
