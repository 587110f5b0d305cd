"""Attribution of paper records: of a version, of a model's whole life in production, and of all models.

Recorded positions are traded on the stored bars under the home's terms of the market, with the execution of
the version in charge. Bars without a recorded position, and pauses of the model, are traded flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.pools import portfolio
from clm_core.backtest.tearsheet import write_sections
from clm_core.domain.errors import CLMError, NotFound
from clm_core.domain.explanations import Section
from clm_core.domain.versions import ModelVersion
from clm_core.explain.attribution import attribution_of
from clm_core.explain.attribution_section import attribution_section
from clm_core.explain.profit_parts import Profit, TradedMarket, TradedStretch, profit_of, together
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.market.regimes import regimes
from clm_core.retraining.shadow_tracks import (
    Pause,
    ProductionPeriod,
    RecipeTrack,
    Stint,
    markets_since,
    periods_of,
    recipe_track,
    stint_of,
    terms_of,
)
from clm_core.services import Services

SUBTITLE = "P&L of recorded positions, after the costs of the home in force."
PAUSE = "no version"
"""Owner of the bars on which a model was halted."""


@dataclass(frozen=True, eq=False)
class RecordProfit:
    """Profit of a paper record in parts."""

    profit: Profit
    since: datetime
    until: datetime
    """Close of the newest bar."""
    recorded: int
    """Recorded positions, over all members of a pool."""
    late: int
    """Positions recorded more than a bar after the close of the bar."""
    missing: int
    """Bars without a recorded position while a version was in charge, traded flat."""


def attribute_version(services: Services, version: ModelVersion) -> Section:
    """Attribution of the paper record of a version since the registration.

    Raises:
        NotFound: no bar has closed since.
    """
    whole = ProductionPeriod((Stint(version, version.created_at),), version, None)
    record = _profit(services, version, [whole])
    return _section(record, f"{version.model_id} {version.version} since the registration")


def attribute_model(services: Services, model_id: str) -> Section:
    """Attribution of the whole life of a model in production.

    Raises:
        NotFound: no version was ever in production, or no bar has closed since.
    """
    return _section(production_profit(services, model_id), f"{model_id} in production")


def attribute_all(services: Services) -> Section:
    """Attribution of all models in production, each on a starting capital of its own.

    Raises:
        NotFound: no model has a bar in production.
    """
    records = list[tuple[str, RecordProfit]]()
    remarks = list[str]()
    for model_id in services.ledger.promotions.models():
        try:
            records.append((model_id, production_profit(services, model_id)))
        except NotFound:
            continue
        except CLMError as error:
            remarks.append(f"{model_id} is left out: {error}")
    if not records:
        raise NotFound(" ".join(["No model has closed a bar in production.", *remarks]))
    profit = together([(model_id, each.profit) for model_id, each in records])
    section = attribution_section(attribution_of(profit, owners="model"))
    sentences = (
        f"Models in production, now or before: {len(records)}, each on a starting capital of its own. "
        "Amounts are sums over the models, as fractions of one such capital.",
        *section.sentences,
        *(_facts(each, model_id) for model_id, each in records),
        *remarks,
    )
    return section.model_copy(update={"sentences": sentences})


def production_profit(services: Services, model_id: str) -> RecordProfit:
    """Profit of the versions in production one after another, flat while none was.

    Raises:
        NotFound: no version was ever in production, or no bar has closed since.
    """
    changes = services.ledger.promotions.committed(model_id)
    if not changes:
        raise NotFound(f"No version of {model_id} was ever in production: `clm models` lists the models.")
    stints = [stint_of(services, change) for change in changes]
    first = next(stint.version for stint in stints if isinstance(stint, Stint))
    return _profit(services, first, periods_of(services, stints, first))


def write_page(services: Services, name: str, section: Section) -> Path:
    """Write a self-contained page of an attribution; returns the path.

    Args:
        name: version, model or "all models", for the heading and the file.
    """
    path = services.reports / f"attribution-{name.replace('@', '-').replace(' ', '-')}.html"
    return write_sections(path, name, "", SUBTITLE, [section])


def _profit(services: Services, version: ModelVersion, periods: Sequence[ProductionPeriod]) -> RecordProfit:
    """
    Args:
        version: version with the markets of all.
    """
    since = periods[0].stints[0].since
    markets = markets_since(services, version, since)
    stretches = list[TradedStretch]()
    tracks = list[RecipeTrack]()
    for period in periods:
        own = [recipe_track(services, period.stints, period.within(bars)) for bars in markets]
        filled = [track for track in own if len(track.bars)]
        if filled:
            stretches.append(_stretch(services, period, filled, len(own)))
            tracks += filled
    if not stretches:
        raise NotFound(f"{version.model_id}: no bar has closed since {since:%Y-%m-%d %H:%M} UTC.")
    newest = max(track.bars.end.to_pydatetime() for track in tracks)
    bar = timedelta(seconds=tracks[0].bars.timeframe.seconds)
    return RecordProfit(
        profit=profit_of(stretches),
        since=since,
        until=newest + bar,
        recorded=sum(int(track.recorded.sum()) for track in tracks),
        late=sum(int((track.recorded & ~track.in_time).sum()) for track in tracks),
        missing=sum(int((~track.recorded & ~track.in_time).sum()) for track in tracks),
    )


def _stretch(
    services: Services, period: ProductionPeriod, tracks: Sequence[RecipeTrack], members: int
) -> TradedStretch:
    """A period traded from flat.

    Args:
        tracks: tracks of the markets with bars.
        members: number of markets sharing the capital.
    """
    axis = tracks[0].bars
    markets = []
    for track in tracks:
        terms = terms_of(services, period.version, track.bars)
        result = terms.backtest(track.bars, track.positions)
        markets.append(TradedMarket(track.bars, result, terms, _regime(services, track.bars, members)))
    returns = markets[0].result.returns
    if members > 1:
        axis = Panel(period.version.symbol, tuple(track.bars for track in tracks)).index_bars()
        results = [(each.bars, each.result) for each in markets]
        returns = portfolio(axis, results, 1.0, members=members).returns
    return TradedStretch(axis, returns, markets, members, _owners(axis, period))


def _regime(services: Services, bars: Bars, members: int) -> NDArray[np.int8] | None:
    """Regime known at the open of each bar; None for a member of a pool."""
    if members > 1:
        return None
    whole = services.market.bars(bars.symbol, bars.timeframe, closed_by=services.clock())
    return regimes(whole).days.known_at(bars.time)


def _owners(axis: Bars, period: ProductionPeriod) -> NDArray[np.str_]:
    """Version in charge of the position held through each bar."""
    names = np.array([PAUSE if isinstance(each, Pause) else each.version.version for each in period.stints])
    starts = [axis.row_closed_after(each.since) for each in period.stints]
    # the first position of a stint follows its first closed bar
    number = np.searchsorted(starts, np.arange(len(axis)) - 1, side="right") - 1
    return np.asarray(names[np.maximum(number, 0)])


def _section(record: RecordProfit, name: str) -> Section:
    section = attribution_section(attribution_of(record.profit))
    return section.model_copy(update={"sentences": (*section.sentences, _facts(record, name))})


def _facts(record: RecordProfit, name: str) -> str:
    missing = f", {record.missing:,} bars without one traded flat" if record.missing else ""
    return (
        f"{name}, {record.since:%Y-%m-%d %H:%M} to {record.until:%Y-%m-%d %H:%M} UTC: "
        f"{record.recorded:,} recorded positions, {record.late:,} of them late{missing}."
    )
