"""Scheduled fetch of bars: the markets of the universe that name an exchange, after each bar.

A market that cannot be fetched leaves the other markets unaffected; the next pass continues from the stored
bars.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain.universe import Market
from clm_core.market.exchange import RetryPolicy
from clm_core.operations.passes import PassReport, Row, report_problems, run_each
from clm_core.services import Services

RETRY_POLICY = RetryPolicy(deadline_s=300.0)
"""Time limit for each market; the next bar brings the next attempt."""


class MarketUpdate(BaseModel):
    """A market brought up to date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    timeframe: str
    exchange: str
    new_bars: int
    newest_bar: AwareDatetime
    """Open time of the last bar."""
    bars: int
    """Number of stored bars."""


class IngestReport(PassReport):
    """Markets fetched in one pass."""

    markets: tuple[MarketUpdate, ...]

    @property
    def headline(self) -> str:
        if not self.markets and not self.problems:
            return 'No market of the universe names an exchange: `exchange = "binance"` under [[universe]].'
        new = sum(market.new_bars for market in self.markets)
        failed = f"; {len(self.problems)} could not be fetched" if self.problems else ""
        return f"Markets up to date: {len(self.markets)}, with {new:,} new bars{failed}."

    def rows(self) -> list[Row]:
        return [
            {
                "market": f"{market.symbol} {market.timeframe}",
                "exchange": market.exchange,
                "new bars": f"{market.new_bars:,}",
                "newest bar (UTC)": f"{market.newest_bar:%Y-%m-%d %H:%M}",
                "bars": f"{market.bars:,}",
            }
            for market in self.markets
        ]


def run(services: Services) -> IngestReport:
    """Fetch the bars closed since the last pass, market after market."""
    markets, problems = run_each(
        (f"{market.symbol} {market.timeframe}", partial(_fetch, services, market, exchange))
        for market, exchange in _markets_of_exchanges(services)
    )
    report_problems(services, "fetch", "clm data update", problems)
    return IngestReport(at=services.clock(), markets=tuple(markets), problems=tuple(problems))


def _markets_of_exchanges(services: Services) -> Iterator[tuple[Market, str]]:
    for market in services.settings.universe:
        if market.exchange is not None:
            yield market, market.exchange


def _fetch(services: Services, market: Market, exchange: str) -> MarketUpdate:
    now = services.clock()
    before = services.market.stored(market.symbol, market.timeframe)
    step = f"Fetching {market.symbol} {market.timeframe} from {exchange}"
    services.announce(step, 0.0)
    info = services.market.fetch(
        market.symbol,
        market.timeframe,
        exchange,
        None if before else now - timedelta(days=market.dataset_span_days),
        now=now,
        retry_policy=RETRY_POLICY,
        base_url=market.exchange_url,
        progress=partial(services.announce, step),
    )
    return MarketUpdate(
        symbol=info.symbol,
        timeframe=info.timeframe,
        exchange=exchange,
        new_bars=info.bars - (before.bars if before else 0),
        newest_bar=info.end,
        bars=info.bars,
    )
