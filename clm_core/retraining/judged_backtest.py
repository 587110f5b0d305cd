"""Backtest of the out-of-sample positions behind a verdict, traded again under the terms of the home."""

from collections.abc import Mapping

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining.judging import out_of_sample_backtest
from clm_core.retraining.shadow_tracks import terms_of
from clm_core.services import Services


def judged_backtest(services: Services, version: ModelVersion) -> tuple[Bars, Backtest] | None:
    """Out-of-sample bars and the judged backtest of a version; of a pool, the common axis and the portfolio.

    None if the positions or their bars are stored no more.

    Raises:
        UnknownSeries: no bar of the market is stored.
    """
    now = services.clock()
    symbols = services.ledger.job(version.training_job_id).symbols
    names = symbols or (version.symbol,)
    markets = [services.market.bars(name, version.timeframe, closed_by=now) for name in names]
    bars: Bars | Panel = Panel(version.symbol, tuple(markets)) if symbols else markets[0]
    terms: Mapping[str, MarketTerms] = {each.symbol: terms_of(services, version, each) for each in markets}
    return out_of_sample_backtest(services, version, bars, terms)
