"""Required Sharpe ratio of a training window: what the gate's evidence asks of a record of this length."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from clm_core.backtest.walk_forward import fold_rows
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.evidence_window import EvidenceWindow, ShortTraining
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.track_record import TrackRecord
from clm_core.evidence.trials import DAY, TrialCount, sharpe_to_pass
from clm_core.market.panel import Times
from clm_core.market.timeframes import Timeframe

MIN_GAIN = 1.1
"""Smallest ratio of a longer window to the present one worth naming."""
DAYS_A_YEAR = 365.25
ENDS = tuple(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=7 * week) for week in range(52))
"""Moments at which a window may end, a year of weeks."""


def evidence_window(
    days: int,
    requested_days: int,
    longer_days: int,
    bars_per_day: float,
    out_of_sample: float,
    trials: TrialCount,
    levels: EvidenceLevels,
    record: tuple[int, int] | None = None,
    too_short: ShortTraining | None = None,
) -> EvidenceWindow:
    """The window, with the Sharpe ratio at which a record of independent, normal returns just passes.

    Args:
        days: days of bars in the window.
        longer_days: days of a longer window to compare with; a window that is hardly longer is left out.
        bars_per_day: mean number of bars in a calendar day.
        out_of_sample: share of the bars tested out of sample, 0..1.
        trials: trials of the market and timeframe counted so far, at least the policy's minimum.
        record: days of the recipe's record up to the newest bar, and of those the days after its first
            walk-forward; None for a recipe without a record.
        too_short: bars missing for a fit; None if they suffice or it is not known.
    """

    def required(tested_days: float, forward_days: float = 0.0) -> float | None:
        bars = max(int(tested_days * bars_per_day), 2)
        level = TrackRecord(0.0, 0.0, 3.0, bars, float(bars))
        count = trials.after(forward_days * bars_per_day)
        sharpe = sharpe_to_pass(level, count, levels.min_deflated_sharpe)
        annual = sharpe * math.sqrt(bars_per_day * DAYS_A_YEAR)
        return annual if math.isfinite(annual) else None

    is_longer = record is None and longer_days > MIN_GAIN * days
    return EvidenceWindow(
        days=days,
        requested_days=requested_days,
        out_of_sample=out_of_sample,
        required_sharpe=required(*record) if record else required(days * out_of_sample),
        record_days=record[0] if record else None,
        longer_days=longer_days if is_longer else None,
        longer_sharpe=required(longer_days * out_of_sample) if is_longer else None,
        too_short=too_short,
    )


def tested_share(time: Times, plan: WalkForwardPlan) -> float:
    """Share of the bars from the first fold on, 0..1; of too few bars, which a training refuses, the share
    beside the training span.

    Args:
        time: open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,).
        plan: plan of the walk-forward, with the days and the grid of the request.
    """
    try:
        _, first = fold_rows(time, plan)[0]
    except NotEnoughBars:
        return 1.0 - plan.first_train_fraction
    return 1.0 - float(first.start) / len(time)


def open_times(days: int, timeframe: Timeframe, end: datetime) -> Times:
    """Open times of the bars closed in the days before a moment, in a market that never closes, shape
    (n_bars,)."""
    step = timeframe.nanoseconds
    last = (pd.Timestamp(end).value - timeframe.grid_start) // step * step + timeframe.grid_start - step
    count = max(days * DAY // step, 1)
    return np.asarray(last - step * np.arange(count - 1, -1, -1), np.int64)


def mean_tested_days(days: int, timeframe: Timeframe) -> float:
    """Days of the out-of-sample record of a first retrain with so many days of bars, by the default plan:
    mean over windows that end in any week of a year, since folds begin at dates."""
    plan = WalkForwardPlan().for_request(days, days)
    return days * float(np.mean([tested_share(open_times(days, timeframe, end), plan) for end in ENDS]))
