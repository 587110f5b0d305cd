"""Rows of a verdict about the folds of the walk-forward, with degenerate properties by name."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache

import numpy as np

from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.results import Backtest
from clm_core.backtest.walk_forward import FoldResult
from clm_core.domain.evaluations import FoldSummary, IntervalEstimate
from clm_core.domain.sizing import FLAT
from clm_core.evidence.bootstrap import sharpe_estimate
from clm_core.evidence.soundness import LOSSES
from clm_core.market.bars import Bars, Floats
from clm_core.models.activity import MIN_ACTIVE_SHARE, activity_of

FOLDS_KEPT = 32
LENGTHS = ("rounds", "steps")
"""Training metrics with the length of a fit."""


def summaries(result: Backtest, bars: Bars, folds: Sequence[FoldResult]) -> tuple[FoldSummary, ...]:
    """Folds of a walk-forward, oldest first, each with the results of the judged record on its dates.

    Args:
        result: backtest over the bars; of a pool, the portfolio's.
        bars: out-of-sample bars; of a pool, those of the common axis.
    """
    rows = [_rows(bars, fold) for fold in folds]
    return tuple(
        _summary(result, fold, each, bars.periods_per_year)
        for fold, each in zip(folds, rows, strict=True)
        if each.start < each.stop
    )


def _rows(bars: Bars, fold: FoldResult) -> slice:
    stop = bars.row_after(fold.test_end)
    return slice(min(bars.row_after(fold.test_start - timedelta(microseconds=1)), stop), stop)


def degenerate(folds: tuple[FoldSummary, ...]) -> tuple[str, ...]:
    """A sentence for each degenerate property, with the numbers of the folds."""
    having: dict[str, list[int]] = {}
    for number, fold in enumerate(folds, 1):
        for remark in fold.remarks:
            having.setdefault(remark, []).append(number)
    return tuple(
        f"Fold {', '.join(map(str, numbers))} of {len(folds)}: {remark}."
        for remark, numbers in having.items()
    )


def _summary(result: Backtest, fold: FoldResult, rows: slice, periods_per_year: float) -> FoldSummary:
    exposure = result.exposure[rows]
    entries = result.trades.entry_bar
    loss, of_constant = losses(fold.train_metrics)
    returns = result.returns[rows]
    ratio = sharpe_ratio(returns, periods_per_year)
    return FoldSummary(
        start=fold.test_start,
        end=fold.test_end,
        rounds=_length(fold.train_metrics),
        loss=loss,
        loss_of_constant=of_constant,
        sharpe_ratio=ratio,
        sharpe_interval=_interval(returns.tobytes(), ratio, periods_per_year),
        exposure=float(np.abs(exposure).mean()),
        trades=int(np.count_nonzero((entries >= rows.start) & (entries < rows.stop))),
        remarks=tuple(_remarks(exposure, fold.train_metrics)),
    )


@lru_cache(FOLDS_KEPT)
def _interval(returns: bytes, ratio: float, periods_per_year: float) -> IntervalEstimate | None:
    """Interval of a fold's Sharpe ratio; a replay has most folds of a retrain from the retrain before."""
    return sharpe_estimate(ratio, [np.frombuffer(returns)], periods_per_year)


def losses(train_metrics: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Validation loss of a fit and of a constant; None for a kind without."""
    for name in LOSSES:
        if f"validation_{name}" in train_metrics:
            key = f"validation_{name}"
            return train_metrics[key], train_metrics.get(f"{key}_of_constant")
    return None, None


def _length(train_metrics: Mapping[str, float]) -> float | None:
    return next((train_metrics[name] for name in LENGTHS if name in train_metrics), None)


def _remarks(exposure: Floats, train_metrics: Mapping[str, float]) -> Iterator[str]:
    if np.all(np.abs(exposure) <= FLAT):
        yield "flat on every bar"
    else:
        activity = activity_of(exposure)
        if activity.active_share < MIN_ACTIVE_SHARE:
            yield f"{activity.commonest_side} on {1 - activity.active_share:.1%} of the bars"
    if train_metrics.get("rounds") == 1:
        yield "boosting stopped at the first tree"
    loss, of_constant = losses(train_metrics)
    if loss is not None and of_constant is not None and not loss < of_constant:
        yield "the forecast is no better than a constant"
