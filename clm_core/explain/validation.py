"""Validation metrics of a version: measured on out-of-sample bars only, with the same names for every kind.

Names of the backtest are those of `backtest.results.Metrics`. Names of forecasts, where a kind makes any:

`forecasts`, `independent_forecasts`        forecasts with a known outcome, and outcomes without overlap
`base_rate`, `brier_score`, `brier_skill`   share of rises, Brier score, skill against the base rate
`brier_skill_low`, `auc_low`                low ends of the intervals of 95 %: above 0, and 0.5, beyond chance
`calibration_error`, `auc`                  distance from the shares of rises, area under the ROC curve
`precision_long`, `precision_short`         share of the bars long followed by a rise, and short by a fall
`return_skill`, `return_skill_low`          skill of expected returns against expecting nothing
`return_correlation`                        correlation of expected returns with outcomes
`coverage_90`, `half_width_90`              share inside the conformal intervals, and their median half width
`pinball_loss`, `pinball_skill`             loss of the quantiles, and skill against those of all outcomes
`quantile_error`                            mean distance of the shares below the quantiles from the levels
"""

import math
from collections.abc import Callable
from dataclasses import asdict

from clm_core.backtest.results import Metrics
from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.explain.calibration import calibration_of_record
from clm_core.explain.forecasts import ForecastRecord
from clm_core.explain.residuals import residuals_of


def validation_metrics(metrics: Metrics, record: ForecastRecord | None) -> dict[str, float]:
    """Validation metrics of a version; a metric that was not measured, or is not finite, is left out.

    Args:
        metrics: metrics of the out-of-sample backtest.
        record: out-of-sample forecasts; None for stored evidence, without forecasts.
    """
    measured = {name: float(value) for name, value in asdict(metrics).items()}
    if record is not None:
        measured |= _if_measurable(lambda: _of_probabilities(record))
        measured |= _if_measurable(lambda: _of_returns(record))
    return {name: value for name, value in measured.items() if math.isfinite(value)}


def _if_measurable(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The metrics; none for a kind without such forecasts, or with too few outcomes."""
    try:
        return measure()
    except (ExplanationUnavailable, NotEnoughBars):
        return {}


def _of_probabilities(record: ForecastRecord) -> dict[str, float]:
    calibration = calibration_of_record(record)
    right = {each.name: each.right.value for each in calibration.calls}
    return {
        "forecasts": float(calibration.forecasts),
        "independent_forecasts": calibration.independent,
        "base_rate": calibration.base_rate.value,
        "brier_score": calibration.brier.score,
        "brier_skill": calibration.brier.skill.value,
        "brier_skill_low": calibration.brier.skill.low,
        "calibration_error": calibration.error,
        "auc": calibration.auc.value,
        "auc_low": calibration.auc.low,
        "precision_long": right["long"],
        "precision_short": right["short"],
    }


def _of_returns(record: ForecastRecord) -> dict[str, float]:
    residuals = residuals_of(record)
    quantiles = residuals.quantiles
    of_quantiles = (
        {}
        if quantiles is None
        else {
            "pinball_loss": quantiles.pinball_loss,
            "pinball_skill": quantiles.skill.value,
            "quantile_error": quantiles.error,
        }
    )
    return {
        "return_skill": residuals.skill.value,
        "return_skill_low": residuals.skill.low,
        "return_correlation": residuals.correlation.value,
        "coverage_90": residuals.coverage.value,
        "half_width_90": residuals.half_width,
        **of_quantiles,
    }
