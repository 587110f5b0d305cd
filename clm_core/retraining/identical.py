"""Search for the version of an identical training."""

import platform

from clm_core.domain.errors import CLMError
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.terms import EvaluationTerms
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models.bundle import installed_libraries
from clm_core.retraining import pools, steps
from clm_core.retraining.code_version import code_version
from clm_core.retraining.judging import market_terms
from clm_core.retraining.plans import plan_of
from clm_core.retraining.recipes import recipe_of
from clm_core.retraining.training import TrainingSpec
from clm_core.services import Services


def identical_version(services: Services, job: TrainingJob) -> ModelVersion | None:
    """Newest judged version with the data, the parameters, the seed, the code, the libraries and the terms of
    trading of a job that is not recorded yet.

    Returns:
        None if a training would yield something new, and where that cannot be told, for instance because the
        costs of an own file are damaged: the training names the damage.
    """
    ledger = services.ledger
    try:
        bars = pools.bars_of(services, job)
        same_bars = ledger.versions_of_bars(
            job.model_id, job.data_snapshot, bars.content_hash, job.seed, code_version()
        )
        alike = [each for each in same_bars if ledger.job(each.training_job_id).trains_like(job)]
        if not alike:
            return None
        plan = plan_of(services.settings.walk_forward, job, bars)
        rules = services.settings.execution.rules
        spec = steps.training_spec(job, plan, steps.training_costs(services, bars), rules)
        recipe = recipe_of(job, plan, rules).digest
        libraries = {"Python": platform.python_version(), **installed_libraries(spec.recipe())}
        return next(
            (
                version
                for version in alike
                if version.recipe_digest == recipe
                and libraries.items() <= version.environment.items()
                and _is_judged_alike(services, version, bars, plan, spec)
            ),
            None,
        )
    except CLMError:
        return None


def _is_judged_alike(
    services: Services, version: ModelVersion, bars: Bars | Panel, plan: WalkForwardPlan, spec: TrainingSpec
) -> bool:
    """True if the version was evaluated under the present terms."""
    evaluation, _ = services.ledger.evaluation(version.model_id, version.version)
    if evaluation.terms is None:
        return False
    run = plan.model_copy(update={"seeds": spec.seeds})
    rules = evaluation.terms.execution.rules
    now = {
        symbol: EvaluationTerms.of(terms.terms, run, str(bars.calendar), bars.gap_rules).digest
        for symbol, terms in market_terms(services.terms, bars, rules).items()
    }
    if isinstance(bars, Panel):
        return now == evaluation.terms.members
    return now == {bars.symbol: evaluation.terms_digest}
