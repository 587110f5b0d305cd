"""Standing of a production version for the pages: equity since the promotion, beside the backtest's band."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from clm_core.backtest.tearsheet import rows_to_draw
from clm_core.domain.standings import BAND_LEVEL, BandPoint, EquityPoint, ProductionStanding
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.equity_band import DailyGrowth, daily_growth, equity_band
from clm_core.lifecycle.fills import fill_figures
from clm_core.lifecycle.protection import ProtectedVersion, ServingRecord
from clm_core.market.bars import Floats
from clm_core.services import Services

BUCKETS = 60
"""Stretches of a long equity curve; each keeps its extremes."""
BAND_POINTS = 40
AHEAD = 1.15
"""End of the band, as a multiple of the days since the promotion."""
FEWEST_DAYS = 7.0
"""Shortest band, days."""
NANOSECONDS_A_DAY = 86_400e9


def standing_of(
    services: Services,
    version: ModelVersion,
    record: ServingRecord,
    protected: ProtectedVersion,
    sentences: Sequence[str],
) -> ProductionStanding:
    """Standing of a version that the watch has measured.

    Args:
        record: version traded from flat since the promotion.
        sentences: findings of the watch.
    """
    growth = _growth(services, version)
    equity = _equity(record, protected.since)
    last = equity[-1].days if equity else 0.0
    grid = np.linspace(0.0, max(AHEAD * last, FEWEST_DAYS), BAND_POINTS)
    return ProductionStanding(
        model_id=version.model_id,
        version=version.version,
        since=protected.since,
        at=services.clock(),
        bars=protected.bars,
        trades=protected.trades,
        drawdown=protected.drawdown,
        hard_stop=protected.hard_stop,
        equity=equity,
        band=_band(growth, grid),
        expected=next(iter(_band(growth, np.array([last]))), None) if equity else None,
        sentences=tuple(sentences),
        fills=tuple(each.sentence for each in fill_figures(services, version.model_id)),
    )


def _growth(services: Services, version: ModelVersion) -> DailyGrowth | None:
    """Growth of the judged record of a version; None without a judgement or with few days."""
    trials = services.ledger.trials.competing(version.model_id)
    judged = (trial for label, _, trial in trials if label == version.version)
    trial = next(judged, None)
    return None if trial is None else daily_growth(trial.daily)


def _equity(record: ServingRecord, since: datetime) -> tuple[EquityPoint, ...]:
    """Equity at the closes of the bars, thinned; the first point is the promotion."""
    if record.result is None:
        return ()
    bars = record.bars
    equity = np.concatenate([[1.0], np.cumprod(1.0 + record.result.returns)])
    closes = bars.time + bars.timeframe.nanoseconds - since.timestamp() * 1e9
    days = np.concatenate([[0.0], np.maximum(closes, 0.0) / NANOSECONDS_A_DAY])
    rows = rows_to_draw([equity], BUCKETS)
    return tuple(EquityPoint(days=float(days[row]), equity=float(equity[row])) for row in rows)


def _band(growth: DailyGrowth | None, days: Floats) -> tuple[BandPoint, ...]:
    if growth is None:
        return ()
    band = equity_band(growth, days, BAND_LEVEL)
    rows = zip(days, band.low, band.middle, band.high, strict=True)
    return tuple(
        BandPoint(days=float(day), low=float(low), middle=float(middle), high=float(high))
        for day, low, middle, high in rows
    )
