"""Bars come in: after each bar, those of every market of the universe that names an exchange.

A market that cannot be fetched keeps none of the others from it; it goes on next time from what is stored.
"""

from datetime import timedelta
from functools import partial

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain.universe import Market
from clm_core.market.exchange import Patience
from clm_core.operations.attempts import attempt, report_problems
from clm_core.operations.pages import Row
from clm_core.services import Services

PATIENCE = Patience(deadline_s=300.0)
"""With each market: the next bar comes, and with it the next try."""


class Fetched(BaseModel):
    """A market whose bars are up to date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    timeframe: str
    exchange: str
    new_bars: int
    newest_bar: AwareDatetime
    """Open time of the last bar."""
    bars: int
    """All that are stored."""


class FeedReport(BaseModel):
    """What one pass brought."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    markets: tuple[Fetched, ...]
    problems: tuple[str, ...]
    """What could not be fetched, and why."""

    @property
    def headline(self) -> str:
        if not self.markets and not self.problems:
            return 'No market of the universe names an exchange: `exchange = "binance"` under [[universe]].'
        new = sum(market.new_bars for market in self.markets)
        failed = f"; {len(self.problems)} could not be fetched" if self.problems else ""
        return f"Markets up to date: {len(self.markets)}, with {new:,} new bars{failed}."


def run(services: Services) -> FeedReport:
    """Fetch what closed since the last time, market after market."""
    fetched, problems = list[Fetched](), list[str]()
    for market in services.settings.universe:
        if market.exchange is not None:
            step = partial(_fetch, services, market, market.exchange)
            found, problem = attempt(f"{market.symbol} {market.timeframe}", step)
            fetched += [] if found is None else [found]
            problems += problem
    report_problems(services, "fetch", "clm data update", problems)
    return FeedReport(at=services.clock(), markets=tuple(fetched), problems=tuple(problems))


def rows(report: FeedReport) -> list[Row]:
    """A row a market, for people."""
    return [
        {
            "market": f"{market.symbol} {market.timeframe}",
            "from": market.exchange,
            "new bars": f"{market.new_bars:,}",
            "newest bar (UTC)": f"{market.newest_bar:%Y-%m-%d %H:%M}",
            "bars": f"{market.bars:,}",
        }
        for market in report.markets
    ]


def _fetch(services: Services, market: Market, exchange: str) -> Fetched:
    now, before = services.clock(), services.market.stored(market.symbol, market.timeframe)
    what = f"Fetching {market.symbol} {market.timeframe} from {exchange}"
    services.announce(what, 0.0)
    info = services.market.fetch(
        market.symbol,
        market.timeframe,
        exchange,
        None if before else now - timedelta(days=market.dataset_span_days),
        now=now,
        patience=PATIENCE,
        base_url=market.exchange_url,
        progress=partial(services.announce, what),
    )
    return Fetched(
        symbol=info.symbol,
        timeframe=info.timeframe,
        exchange=exchange,
        new_bars=info.bars - (before.bars if before else 0),
        newest_bar=info.end,
        bars=info.bars,
    )
