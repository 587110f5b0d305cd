"""Out-of-sample forecasts of a training by market, with the sections about the forecasts."""

from collections.abc import Mapping
from typing import Any

from clm_core.domain.explanations import Section
from clm_core.domain.jobs import TrainingJob
from clm_core.explain import calibration_section as calibration
from clm_core.explain import residuals_section as residuals
from clm_core.explain.forecasts import ForecastRecord, market_forecasts
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel, members_of
from clm_core.retraining.model_sections import or_reason
from clm_core.retraining.training import TrainingResult


def forecasts_of(job: TrainingJob, bars: Bars | Panel, trained: TrainingResult, seed: int) -> ForecastRecord:
    """Forecasts of a seed in the walk-forward.

    Args:
        bars: bars of the training.
        seed: index of the seed.
    """
    runs = trained.by_member[seed] if trained.by_member else (trained.out_of_sample[seed],)
    return ForecastRecord(
        kind=job.plugin or job.model_type.value,
        threshold=_threshold(trained.params),
        markets=tuple(
            market_forecasts(each, run, trained.params)
            for each, run in zip(members_of(bars), runs, strict=True)
        ),
    )


def forecast_sections(record: ForecastRecord | None) -> tuple[Section, ...]:
    """Sections about out-of-sample forecasts; none for stored evidence, without forecasts."""
    if record is None:
        return ()
    return (
        or_reason(calibration.NAME, calibration.TITLE, lambda: calibration.calibration_section(record)),
        or_reason(residuals.NAME, residuals.TITLE, lambda: residuals.residuals_section(record)),
    )


def _threshold(params: Mapping[str, Any]) -> float:
    """Distance from even odds by the parameters; 0.0 for parameters without."""
    threshold = params.get("threshold", 0.0)
    return float(threshold) if isinstance(threshold, int | float) and 0 <= threshold < 0.5 else 0.0
