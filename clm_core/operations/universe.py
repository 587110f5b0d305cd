"""Universe in force: the markets of the settings, or else the models trained here.

The series of the demo get no new bars, and a retrain would change nothing: only a listed universe schedules
the demo.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from clm_core.domain.errors import ModelError
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.pools import PoolSettings
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.ledger.store import Ledger
from clm_core.operations.settings_check import has_home
from clm_core.platform.database import open_database
from clm_core.services import open_ledger
from clm_core.settings import Settings

if TYPE_CHECKING:
    from clm_core.market.sources import MarketData


def with_universe(settings: Settings) -> Settings:
    """Settings whose universe and pools are in force: those listed, or the models trained in the home."""
    if settings.lists_universe or not has_home(settings):
        return settings
    with open_database(settings.home, settings.database_url) as database, open_ledger(database) as engine:
        trained = Ledger(engine).newest_trained()
    # the supervisor of the stack, which looks for trained models alone, does without the libraries of bars
    from clm_core.platform.object_storage import market_data

    return with_trained(settings, market_data(settings.home, settings.storage), trained)


def with_trained(settings: Settings, market: "MarketData", trained: Sequence[TrainingJob]) -> Settings:
    """Settings whose universe and pools are the models trained here, each with its newest days of bars.

    Args:
        trained: job of the newest version of each model.
    """
    scheduled = [job for job in trained if _is_scheduled(settings, market, job)]
    markets = tuple(_market(job) for job in scheduled if not job.symbols)
    pools = _pools(job for job in scheduled if job.symbols)
    return settings.model_copy(update={"universe": markets, "pools": pools | settings.pools})


def trained_here(settings: Settings) -> frozenset[str]:
    """Ids of the models with a version."""
    with open_database(settings.home, settings.database_url) as database, open_ledger(database) as engine:
        return frozenset(job.model_id for job in Ledger(engine).newest_trained())


def _is_scheduled(settings: Settings, market: "MarketData", job: TrainingJob) -> bool:
    """True for models of an installed kind on stored bars other than those of the demo."""
    from clm_core.models import catalog

    if job.model_type is ModelType.ENSEMBLE or job.symbol in settings.pools:
        return False
    try:
        catalog.find_kind(*job.kind)
    except ModelError:
        # the library or the plug-in was removed
        return False
    markets = {(symbol, job.timeframe) for symbol in job.symbols or (job.symbol,)}
    newest = list(market.newest_bars(markets))
    return len(newest) == len(markets) and not any(each.is_demo for each in newest)


def _market(job: TrainingJob) -> Market:
    kind = job.kind
    return Market(
        symbol=job.symbol,
        timeframe=job.timeframe,
        model_types=() if kind.plugin else (kind.model_type,),
        plugins=(kind.plugin,) if kind.plugin else (),
        dataset_span_days=job.dataset_span_days,
    )


def _pools(jobs: Iterable[TrainingJob]) -> dict[str, PoolSettings]:
    """Pools by name, each with the kinds trained on the bar length of the first job."""
    pools = dict[str, PoolSettings]()
    for job in jobs:
        known = pools.get(job.symbol)
        if known is not None and known.timeframe != job.timeframe:
            continue
        pools[job.symbol] = PoolSettings(
            symbols=job.symbols,
            timeframe=job.timeframe,
            model_types=(*(known.model_types if known else ()), job.model_type),
            dataset_span_days=job.dataset_span_days,
        )
    return pools
