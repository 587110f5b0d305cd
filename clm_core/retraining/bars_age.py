"""Age of the bars of a retrain: in the verdict where they are stale, and always on the tear sheet.

Old bars refuse nothing: the evidence holds for the market up to the newest bar, and the verdict says so.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from clm_core.decisions.staleness import age_of
from clm_core.domain.bar_age import BarAge
from clm_core.domain.jobs import RetrainRequest
from clm_core.market.bars import Bars
from clm_core.market.newest_bars import NewestBar
from clm_core.market.panel import Panel
from clm_core.retraining import pools
from clm_core.retraining.results import BacktestEvaluation
from clm_core.services import Services


def ages_of(bars: Bars | Panel, now: datetime, stale_bars: int) -> tuple[BarAge, ...]:
    """Age of the newest bar of a market, or of each member of a pool.

    Args:
        stale_bars: `watch.stale_bars` of the settings.
    """
    markets = bars.members if isinstance(bars, Panel) else (bars,)
    return _ages(markets, now, stale_bars)


def stale_markets(services: Services, request: RetrainRequest) -> Iterator[BarAge]:
    """Ages of the markets of a request whose stored bars are stale now."""
    resolved = pools.resolve(services, request)
    markets = [(symbol, resolved.timeframe) for symbol in resolved.symbols or (resolved.symbol,)]
    for newest in services.market.newest_bars(markets):
        age = age_of(newest, services.clock(), services.settings.watch.stale_bars)
        if age.is_stale:
            yield age


def warnings_of(evaluation: BacktestEvaluation, now: datetime, stale_bars: int) -> tuple[str, ...]:
    """Sentence for a verdict about each judged market whose bars are stale."""
    markets = [each.bars for each in evaluation.members] or [evaluation.bars]
    return tuple(
        f"Old bars: {each.sentence}. The verdict holds for the market up to then."
        for each in _ages(markets, now, stale_bars)
        if each.is_stale
    )


def facts_of(bars: Bars | Panel, now: datetime, stale_bars: int) -> dict[str, str]:
    """Line of the tear sheet for the age of each market at the training."""
    ages = ages_of(bars, now, stale_bars)
    title = "age at the training"
    return {
        (title if len(ages) == 1 else f"{title}, {each.symbol}"): (
            f"{each.age} since the close of the newest bar, {each.late}{', STALE' if each.is_stale else ''}"
        )
        for each in ages
    }


def _ages(markets: Sequence[Bars], now: datetime, stale_bars: int) -> tuple[BarAge, ...]:
    return tuple(age_of(NewestBar.of(each), now, stale_bars) for each in markets)
