"""Retrains for a changed regime: weighted towards the measured regime, unless a person named another."""

from clm_core.decisions.repeated_recipe import DEFAULTS
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.recipes import REGIME
from clm_core.domain.triggers import TriggerRequest
from clm_core.domain.vocabulary import MarketRegime, TriggerReason
from clm_core.services import Services


def towards_measured_regime(services: Services, request: TriggerRequest, job: TrainingJob) -> TrainingJob:
    """The job of a request, weighted towards the regime observed where a change of the regime asks for it.

    A `regime` among the parameters stays where a person named it: in the request, or in the training at the
    beginning of the repeated recipes. Kinds that cannot weigh regimes, pools and regimes of other names are
    trained as requested. A regime too new for a training towards it is left out, and `recipe_from` says so.

    Args:
        job: pending job of the request as requested.
    """
    regime = request.observed.regime
    if job.trigger_reason is not TriggerReason.REGIME_CHANGE or regime not in list(MarketRegime):
        return job
    if job.symbols or not _weighs_regimes(job) or _named_by_a_person(services, job):
        return job
    params = job.training_params | {REGIME: regime}
    weighted = job.model_copy(update={"training_params": params})
    try:
        _require_regime(services, weighted, str(regime))
    except NotEnoughBars as error:
        without = {name: value for name, value in params.items() if name != REGIME}
        why = f"{job.recipe_from or 'the request'}; not towards the regime {regime}: {error}"
        return job.model_copy(update={"training_params": without, "recipe_from": why})
    return weighted


def _named_by_a_person(services: Services, job: TrainingJob) -> bool:
    """True if a person named the regime of a job, in a request or at the beginning of the repeated
    recipes."""
    while job.recipe_from is not None and REGIME in job.training_params:
        if job.candidate_id is not None:
            # a variant of a version, of that version's regime
            return False
        label = job.recipe_from.partition(":")[0]
        if label == DEFAULTS:
            return False
        version = services.ledger.version(job.model_id, label)
        job = services.ledger.job(version.training_job_id)
        # a request for a change of the regime that named no regime was given the measured one
        if job.recipe_from is None and job.trigger_reason is TriggerReason.REGIME_CHANGE:
            return False
    return REGIME in job.training_params


def _weighs_regimes(job: TrainingJob) -> bool:
    # the API imports this module, and does without the libraries of models until a retrain is requested
    from clm_core.models import catalog

    return catalog.weighs_regimes(job.model_type, job.plugin)


def _require_regime(services: Services, job: TrainingJob, regime: str) -> None:
    """
    Raises:
        NotEnoughBars: the training bars have too few bars of the regime.
    """
    from clm_core.market.bars import Bars
    from clm_core.retraining import pools
    from clm_core.retraining.plans import plan_of
    from clm_core.retraining.training import require_regime

    bars = pools.bars_of(services, job)
    assert isinstance(bars, Bars)
    require_regime(bars, regime, plan_of(services.settings.walk_forward, job, bars))
