"""From a request to a search: the parameters searched, the bars, and the definition that is recorded."""

from collections.abc import Mapping
from typing import Any

from clm_core.backtest import sentinel
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, PoolRefused
from clm_core.domain.execution import NEW_VERSIONS, ExecutionRules
from clm_core.domain.search_space import SearchDimension
from clm_core.domain.searches import MarketSearch, Search, SearchRequest
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.strategy_search import StrategySearchRequest
from clm_core.market.bars import Bars
from clm_core.market.regimes import with_regimes
from clm_core.market.sources import MarketData
from clm_core.models import catalog
from clm_core.models.own import FeaturesInUse
from clm_core.models.params import feature_names, needs_regimes, own_origins, series_names
from clm_core.search.workers import error_line
from clm_core.services import Services

TERMS = ("costs", "holding", "execution", "long_only", "adjusted", "funding_hash", "dividends_hash")
"""Fields of a `Search` taken from the terms of the market."""


def parameter_space(
    request: SearchRequest, execution: ExecutionRules = NEW_VERSIONS
) -> tuple[dict[str, Any], dict[str, SearchDimension]]:
    """The fixed and the searched parameters; loads no data.

    Args:
        execution: rules of the installation, for rules missing in the request.

    Raises:
        InvalidTrainingParams: a fixed parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: the model's library is not installed.
        ModelError: the kind of model has no implementation, or nothing to search.
    """
    # the costs are defaults of parameters that the request does not name
    described = catalog.recipe(
        request.model_type, request.training_params, Costs(), request.plugin
    ).describe()
    every = catalog.search_space(request.model_type, request.plugin)
    stored = catalog.requested_params(request.model_type, request.training_params, request.plugin, execution)
    own = catalog.own_params(stored)
    fixed = {name: described[name] for name in own if name in request.training_params or name not in every}
    # as requested: described sections hold costs of a market
    fixed |= {name: stored[name] for name in stored if name not in own}
    space = {name: dimension for name, dimension in every.items() if name not in fixed}
    if not space:
        raise InvalidTrainingParams(
            f"every parameter of {request.kind} is fixed: leave one of {', '.join(every)} open"
        )
    return fixed, space


def search_fields(request: SearchRequest, fixed: Mapping[str, Any], services: Services) -> dict[str, Any]:
    """Fields of a `Search` that follow from the request, the settings and the stored bars.

    Args:
        fixed: parameters outside the search, with the execution of every trial.

    Raises:
        PoolRefused: the symbol names a pool.
        UnknownSeries: no source has the requested bars.
    """
    market = market_fields(request, fixed, services)
    return {
        "model_type": request.model_type,
        "plugin": request.plugin,
        **market,
        "series": services.market.newest_series(series_names(fixed), market["symbol"]),
        "own_features": {each.name: each.digest for each in own_origins(fixed)},
        "seeds": request.seeds or catalog.find_kind(*request.kind).seeds,
        "plan": services.settings.walk_forward.in_equal_folds(),
    }


def market_fields(
    request: SearchRequest | StrategySearchRequest, fixed: Mapping[str, Any], services: Services
) -> dict[str, Any]:
    """Fields of a `MarketSearch` but name, fixed parameters and time.

    Raises:
        PoolRefused: the symbol names a pool.
        UnknownSeries: no source has the requested bars.
    """
    require_one_market(services, request.symbol)
    series = services.market.newest(request.symbol, request.timeframe)
    rules = catalog.version_execution(fixed, services.settings.execution.rules)
    terms = services.terms(series.symbol, series.calendar).under(rules).terms
    return {
        "symbol": series.symbol,
        "timeframe": series.timeframe.value,
        "dataset_span_days": request.dataset_span_days,
        "data_snapshot": series.content_hash,
        "holdout": request.holdout,
        "seed": request.seed,
        **{name: getattr(terms, name) for name in TERMS},
        "requested_by": request.requested_by,
    }


def require_one_market(services: Services, symbol: str) -> None:
    """
    Raises:
        PoolRefused: the symbol names a pool.
    """
    name = normalise_symbol(symbol)
    named = services.settings.pools.get(name)
    symbols = services.ledger.pool_members(name) if named is None else named.symbols
    if symbols:
        raise PoolRefused(
            f"{name} is a pool of {', '.join(symbols)}, and a search runs on one market: search with "
            f"--symbol {symbols[0]}, then train the pool with the parameters found, as `clm retrain "
            f"--symbols {','.join(symbols)} --pool {name} --params-from STUDY`"
        )


def stored_bars(market: MarketData, search: MarketSearch) -> Bars:
    """The bars that had closed when the search began, also when the search is continued later.

    Raises:
        UnknownSeries: no source has the bars, or no longer.
    """
    return market.bars(
        search.symbol,
        search.timeframe,
        search.dataset_span_days,
        search.data_snapshot,
        closed_by=search.created_at,
    )


def search_bars(market: MarketData, search: Search) -> Bars:
    """The stored bars of a search with the series and regimes that its models use.

    Raises:
        UnknownSeries: no source has the bars or series, or no longer.
    """
    bars = stored_bars(market, search)
    if needs_regimes(search.fixed, search.plugin):
        whole = market.bars(
            search.symbol, search.timeframe, None, search.data_snapshot, closed_by=search.created_at
        )
        bars = with_regimes(bars, whole)
    return market.with_series(bars, search.series)


def checked_features(search: Search, bars: Bars) -> FeaturesInUse:
    """Own features of a search for its workers, examined on the bars.

    Raises:
        LookAhead: an own feature uses future bars.
        FeatureFailed: an own feature raises, gives no number, or remembers more bars than declared.
    """
    sentinel.examine_own_features(feature_names(search.fixed), bars, search.seed)
    return FeaturesInUse.of(search.fixed)


def contradiction(search: Search, params: Mapping[str, Any]) -> str | None:
    """Error of parameters that are each in range but cannot be combined; None if they can."""
    explicit = catalog.stored_params(search.model_type, params, search.plugin)
    try:
        catalog.recipe(search.model_type, explicit, search.market_costs, search.plugin)
    except InvalidTrainingParams as error:
        return error_line(error)
    return None
