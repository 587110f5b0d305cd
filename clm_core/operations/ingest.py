"""Scheduled fetch of bars: the markets of the universe that name an exchange or a database, after each bar.

The newest stored bars are read again, and small corrections of the source are taken. A market that cannot
be fetched leaves the other markets unaffected; the next pass continues from the stored bars.
"""

import logging
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain.errors import StoredBarsDiffer
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.universe import Market
from clm_core.market.bar_source import BarSource, ExchangeSource
from clm_core.market.corrections import Revision
from clm_core.market.exchange import RetryPolicy
from clm_core.market.newest_bars import NewestBar
from clm_core.operations.data_age import report_stale_markets
from clm_core.operations.passes import PassReport, Row, report_problems, run_each
from clm_core.platform.bar_database import database_source
from clm_core.platform.tracing import traced
from clm_core.services import Services

log = logging.getLogger(__name__)

RETRY_POLICY = RetryPolicy(deadline_s=300.0)
"""Time limit for each market; the next bar brings the next attempt."""


class MarketUpdate(BaseModel):
    """A market brought up to date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    timeframe: str
    exchange: str
    """Name of the exchange, or `database NAME`."""
    new_bars: int
    newest_bar: AwareDatetime
    """Open time of the last bar."""
    bars: int
    """Number of stored bars."""
    late_bars: int = 0
    """Bars that the calendar requires after the newest bar, and that the source does not give."""
    corrections: tuple[Revision, ...] = ()
    """Corrections of stored bars taken by this pass, oldest first."""
    waiting: int = 0
    """Number of stored bars with other values at the exchange, which wait for `clm data replace`."""

    @property
    def corrected(self) -> int:
        """Number of stored bars corrected by this pass."""
        return sum(revision.bars for revision in self.corrections)


class RanksUpdate(BaseModel):
    """Ranks of a feature among the members of a pool, brought up to date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: str
    feature: str
    new_values: int
    """New values over all members."""


class IngestReport(PassReport):
    """Markets fetched in one pass, and the ranks of pools."""

    markets: tuple[MarketUpdate, ...]
    ranks: tuple[RanksUpdate, ...] = ()

    @property
    def headline(self) -> str:
        if not self.markets and not self.ranks and not self.problems:
            return 'No market of the universe names a source: `exchange = "binance"` under [[universe]].'
        new = sum(market.new_bars for market in self.markets)
        corrected = sum(market.corrected for market in self.markets)
        waiting = sum(1 for market in self.markets if market.waiting)
        failed = len(self.problems) - waiting
        counts = [
            f"Markets up to date: {len(self.markets)}, with {new:,} new bars",
            *([f"{corrected:,} bars corrected by the source"] if corrected else []),
            *([f"{waiting} with bars that differ from the source's"] if waiting else []),
            *([f"{failed} could not be fetched"] if failed else []),
        ]
        return f"{'; '.join(counts)}."

    def rows(self) -> list[Row]:
        return [
            {
                "market": f"{market.symbol} {market.timeframe}",
                "exchange": market.exchange,
                "new bars": f"{market.new_bars:,}",
                "corrected": f"{market.corrected:,}",
                "newest bar (UTC)": f"{market.newest_bar:%Y-%m-%d %H:%M}",
                "late": f"{market.late_bars:,}",
                "bars": f"{market.bars:,}",
            }
            for market in self.markets
        ]

    def summary_lines(self) -> list[str]:
        """Ranks computed, corrections taken, then the problems."""
        return [
            *(f"{each.pool}: {each.new_values:,} new ranks of {each.feature}" for each in self.ranks),
            *(
                f"{market.symbol} {market.timeframe}: {revision}"
                for market in self.markets
                for revision in market.corrections
            ),
            *self.problems,
        ]


@traced("fetch")
def run(services: Services) -> IngestReport:
    """Fetch the bars closed since the last pass, market after market."""
    differing: list[str] = []
    markets, failed = run_each(
        (f"{market.symbol} {market.timeframe}", partial(_fetch, services, market, source, differing))
        for market, source in _fetched_markets(services)
    )
    ranks, unranked = run_each(
        (f"ranks of {feature} in {name}", partial(_rank, services, name, feature))
        for name, pool in services.settings.pools.items()
        for feature in pool.ranks
    )
    problems = [*failed, *unranked, *differing]
    report_stale_markets(services)
    report_problems(services, "fetch", "clm data update", problems)
    return IngestReport(
        at=services.clock(), markets=tuple(markets), ranks=tuple(ranks), problems=tuple(problems)
    )


def fetch_first(services: Services, lease: Lease, job: TrainingJob) -> TrainingJob:
    """The job with its data; of a market without bars at the creation of the job, they are fetched before.

    Raises:
        SourceUnavailable: the exchange or database does not answer.
        UnknownSeries: the universe no longer names a source of the market, or an own series is not stored.
    """
    if job.data_snapshot:
        return job
    # imported here: a pass without such a job does without the libraries of models
    from clm_core.models.params import series_names

    market = services.settings.fetched_market(job.symbol, job.timeframe)
    if market is not None and services.market.stored(job.symbol, job.timeframe) is None:
        _fetch(services, market, _source_of(services, market), [])
    series = services.market.newest(job.symbol, job.timeframe)
    own_series = services.market.newest_series(series_names(job.training_params), series.symbol)
    return services.ledger.pin_data(lease, series.content_hash, own_series, services.clock())


def _fetched_markets(services: Services) -> Iterator[tuple[Market, BarSource]]:
    for market in services.settings.universe:
        if market.is_fetched:
            yield market, _source_of(services, market)


def _source_of(services: Services, market: Market) -> BarSource:
    """Exchange or database of a fetched market."""
    if market.exchange is not None:
        keys = services.settings.exchanges.get(market.exchange)
        return ExchangeSource(market.exchange, RETRY_POLICY, market.exchange_url, keys)
    assert market.database is not None
    return database_source(services.settings.databases, market.database)


def _rank(services: Services, name: str, feature: str) -> RanksUpdate:
    pool = services.settings.pools[name]
    now = services.clock()
    new = services.market.add_ranks(pool.symbols, pool.timeframe, feature, now)
    return RanksUpdate(pool=name, feature=feature, new_values=new)


def _fetch(services: Services, market: Market, source: BarSource, differing: list[str]) -> MarketUpdate:
    """Fetch a market; bars that differ from the source's are added to the problems, the update goes on."""
    now = services.clock()
    before = services.market.stored(market.symbol, market.timeframe)
    step = f"Fetching {market.symbol} {market.timeframe} from {source.name}"
    services.announce(step, 0.0)
    try:
        services.market.fetch(
            market.symbol,
            market.timeframe,
            source,
            None if before else now - timedelta(days=market.dataset_span_days),
            now=now,
            progress=partial(services.announce, step),
            rechecked=market.rechecked_bars,
        )
    except StoredBarsDiffer as refusal:
        differing.append(f"{market.symbol} {market.timeframe}: {refusal}")
    manifest = services.market.manifest(market.symbol, market.timeframe)
    newest = manifest.snapshots[-1]
    known = 0 if before is None else before.snapshots
    corrections = tuple(each.revision for each in manifest.snapshots[known:] if each.revision is not None)
    for correction in corrections:
        log.info("%s %s: %s", manifest.symbol, manifest.timeframe, correction)
    latest = NewestBar(manifest.symbol, manifest.timeframe, manifest.calendar, newest.end)
    return MarketUpdate(
        symbol=manifest.symbol,
        timeframe=manifest.timeframe,
        exchange=source.name,
        new_bars=newest.bars - (before.bars if before else 0) - sum(each.added for each in corrections),
        newest_bar=newest.end,
        bars=newest.bars,
        late_bars=latest.late_bars(now),
        corrections=corrections,
        waiting=len(manifest.waiting),
    )
