"""Age of the data: the newest bar of each market in use, and the alert about markets without new bars.

A market is in use by the universe, by a pool of the settings or by a production version; without a listed
universe, by the models trained here. The alert is about markets with new bars to come: markets fetched on a
schedule, and markets with a production version. The series of the demo end in 2019 for ever and are never
alerted: no trader can trade on the series, and the alert would stay open for every newcomer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from clm_core.decisions.staleness import age_of
from clm_core.domain.alerts import AlertKind
from clm_core.domain.bar_age import DataAge, MarketAge
from clm_core.domain.errors import CLMError
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.store import Ledger
from clm_core.market.newest_bars import NewestBar
from clm_core.market.timeframes import Timeframe
from clm_core.services import Services
from clm_core.settings import Settings

MarketKey = tuple[str, str]
"""Canonical symbol and timeframe."""
MAX_MODELS = 1000
UNKNOWN = "The age of the bars is not known"


def data_age(services: Services) -> DataAge:
    """Ages of the markets in use."""
    try:
        if services.storage_probe is not None:
            # a look must not wait for a bucket as long as a training would
            services.storage_probe.require_reachable()
    except CLMError as error:
        return DataAge(problem=f"{UNKNOWN}: {error}")
    read = services.market.newest_bars
    return read_data_age(services.ledger, services.settings, services.clock(), read)


def read_data_age(
    ledger: Ledger,
    settings: Settings,
    now: datetime,
    newest_bars: Callable[[Iterable[MarketKey]], Iterable[NewestBar]],
) -> DataAge:
    """Ages of the markets in use.

    Args:
        newest_bars: newest bars of given markets; markets without bars are left out.
    """
    serving = _serving_by_market(ledger)
    fetched = {_key(each.symbol, each.timeframe) for each in settings.universe if each.is_fetched}
    markets = list[MarketAge]()
    problem = None
    try:
        for newest in newest_bars(
            dict.fromkeys([*_of_settings(settings), *_of_trained(ledger, settings), *serving])
        ):
            market = (newest.symbol, newest.timeframe.value)
            markets.append(
                MarketAge(
                    bars=age_of(newest, now, settings.watch.stale_bars),
                    is_fetched=market in fetched,
                    is_demo=newest.is_demo,
                    serving=tuple(serving.get(market, ())),
                )
            )
    except CLMError as error:
        problem = f"{UNKNOWN}: {error}"
    markets.sort(key=lambda each: (not each.is_alarming, not each.bars.is_stale, each.bars.market))
    return DataAge(markets=tuple(markets), problem=problem)


def report_stale_markets(services: Services) -> DataAge:
    """Open an alert for each alarming market, once, and end the alerts of all other markets.

    Alerts stay as they are while the ages are not known.
    """
    ages = data_age(services)
    if ages.problem is not None:
        return ages
    now = services.clock()
    alarming = {each.bars.market: each for each in ages.markets if each.is_alarming}
    for alert in services.alerts.lasting(AlertKind.STALE_BARS):
        if alert.subject not in alarming:
            services.alerts.end(AlertKind.STALE_BARS, alert.subject, now)
    for market, age in alarming.items():
        services.alerts.settle(AlertKind.STALE_BARS, market, stale_message(age), now)
    return ages


def stale_message(age: MarketAge) -> str:
    """Cause and remedy, for the person on call."""
    sentence = age.bars.sentence
    answering = ""
    if age.serving:
        noun = "answers" if len(age.serving) == 1 else "answer"
        answering = f" {', '.join(age.serving)} {noun} to an old market."
    remedy = "`clm data import` reads a file; with an exchange under [[universe]] bars are fetched."
    if age.is_fetched:
        remedy = "`clm data update` fetches the bars, and the log of the flow `fetch` has the cause."
    return f"{sentence[0].upper()}{sentence[1:]}.{answering} {remedy}"


def _of_settings(settings: Settings) -> Iterator[MarketKey]:
    """Markets of the universe and of the pools."""
    for market in settings.universe:
        yield _key(market.symbol, market.timeframe)
    for pool in settings.pools.values():
        for symbol in pool.symbols:
            yield _key(symbol, pool.timeframe)


def _of_trained(ledger: Ledger, settings: Settings) -> Iterator[MarketKey]:
    """Markets of the models trained here: the universe of a home without a list."""
    for job in () if settings.lists_universe else ledger.newest_trained():
        for symbol in job.symbols or (job.symbol,):
            yield _key(symbol, job.timeframe)


def _serving_by_market(ledger: Ledger) -> dict[MarketKey, list[str]]:
    """Models with a production version, by market; a pool belongs to the markets of its members."""
    models = defaultdict[MarketKey, list[str]](list)
    members = ledger.members_by_pool()
    versions = ledger.versions(status=ModelStatus.PRODUCTION, limit=MAX_MODELS)
    for version in sorted(versions, key=lambda each: each.model_id):
        for symbol in members.get(version.symbol, (version.symbol,)):
            models[_key(symbol, version.timeframe)].append(version.model_id)
    return models


def _key(symbol: str, timeframe: str) -> MarketKey:
    return normalise_symbol(symbol), Timeframe(timeframe).value
