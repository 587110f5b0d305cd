"""Searches at the request of a person: checked and named before a run is created for a worker."""

from clm_core.domain.evolution import EvolveRequest
from clm_core.domain.strategy_search import StrategySearchRequest
from clm_core.domain.tuning import TuneRequest
from clm_core.search import evolution, strategy_search, tuning
from clm_core.search.request import require_one_market
from clm_core.services import Services


def checked_tuning(services: Services, request: TuneRequest) -> TuneRequest:
    """The request with a name for the study.

    Raises:
        InvalidTrainingParams, MissingExtra, ModelError: as for `tuning.check`.
        PoolRefused: the symbol names a pool.
        UnknownSeries: no source has the bars.
    """
    tuning.check(request, services.settings.execution.rules)
    _require_bars(services, request)
    return request.model_copy(update={"study": request.study or _name(services, request.model_id)})


def checked_evolution(services: Services, request: EvolveRequest) -> EvolveRequest:
    """The request with a name for the evolution.

    Raises:
        InvalidTrainingParams, MissingExtra, ModelError: as for `evolution.check`.
        PoolRefused: the symbol names a pool.
        UnknownSeries: no source has the bars.
    """
    evolution.check(request, services.settings.execution.rules)
    _require_bars(services, request)
    return request.model_copy(update={"name": request.name or _name(services, request.model_id)})


def checked_strategy_search(services: Services, request: StrategySearchRequest) -> StrategySearchRequest:
    """The request with a name for the search.

    Raises:
        InvalidTrainingParams, MissingExtra: as for `strategy_search.check`.
        PoolRefused: the symbol names a pool.
        UnknownSeries: no source has the bars.
    """
    strategy_search.check(request)
    _require_bars(services, request)
    return request.model_copy(update={"name": request.name or _name(services, request.subject)})


def _require_bars(services: Services, request: TuneRequest | EvolveRequest | StrategySearchRequest) -> None:
    require_one_market(services, request.symbol)
    services.market.newest(request.symbol, request.timeframe)


def _name(services: Services, subject: str) -> str:
    return f"{subject}_{services.clock():%Y%m%d_%H%M%S}"
