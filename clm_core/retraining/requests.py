"""Checks of a request to retrain before anything is started, and the result of the run."""

from datetime import datetime

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotRetrained, UnknownSeries
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.triggers import Answer
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelType
from clm_core.ledger.store import Ledger
from clm_core.models import catalog
from clm_core.platform.object_storage import market_data
from clm_core.retraining.ensembles import resolve_members
from clm_core.retraining.results import RetrainResult
from clm_core.retraining.window import require_trainable
from clm_core.settings import Settings


def require_valid(settings: Settings, request: RetrainRequest, now: datetime) -> None:
    """
    Raises:
        CLMError: the bars do not exist or are too few, or the parameters are not valid.
    """
    recipe = catalog.recipe(request.model_type, request.training_params, Costs(), request.plugin)
    named = settings.pools.get(normalise_symbol(request.symbol))
    symbols = request.symbols or (() if named is None else named.symbols)
    if symbols:
        catalog.pooling(recipe)
    market = market_data(settings.home, settings.storage)
    if symbols:
        for symbol in symbols:
            market.bars(symbol, request.timeframe, closed_by=now)
        return
    try:
        bars = market.bars(request.symbol, request.timeframe, request.dataset_span_days, closed_by=now)
    except UnknownSeries:
        if settings.fetched_market(request.symbol, request.timeframe) is None:
            raise
        # the run fetches the bars first
        return
    require_trainable(settings.walk_forward, recipe, request, bars)


def require_members(settings: Settings, ledger: Ledger, request: RetrainRequest, now: datetime) -> None:
    """Validate the members of an ensemble against the ledger.

    Raises:
        CLMError: a version cannot be a member.
    """
    if request.model_type is not ModelType.ENSEMBLE:
        return
    bars = market_data(settings.home, settings.storage).bars(request.symbol, request.timeframe, closed_by=now)
    stored_names = {"symbol": bars.symbol, "timeframe": bars.timeframe.value}
    resolve_members(ledger, request.model_copy(update=stored_names))


def granted(ledger: Ledger, result: RetrainResult | Answer) -> RetrainResult:
    """
    Raises:
        NotRetrained: the run answered without a training.
    """
    if isinstance(result, Answer):
        remedy = _remedy(ledger, result)
        raise NotRetrained(f"{result.model_id} was not retrained, the request was {result.sentence}.{remedy}")
    return result


def existing_version(ledger: Ledger, result: RetrainResult | Answer) -> ModelVersion | None:
    """Version of an earlier job that serves the request, if the run answered with such a job."""
    if not isinstance(result, Answer) or result.job_id is None:
        return None
    if ledger.job(result.job_id).status is not JobStatus.COMPLETED:
        return None
    return next(iter(ledger.versions(training_job_id=result.job_id, limit=1)), None)


def _remedy(ledger: Ledger, answer: Answer) -> str:
    """Commands for the job of an answer that waits for a worker; empty for another job, or none."""
    if answer.job_id is None or ledger.job(answer.job_id).status is not JobStatus.PENDING:
        return ""
    return (
        f" A worker of `clm up` starts the job; `clm jobs run {answer.job_id}` runs the job here, and `clm "
        f"jobs cancel {answer.job_id}` cancels the job."
    )
