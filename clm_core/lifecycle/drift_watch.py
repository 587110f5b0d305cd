"""Drift of the production versions: features, predictions and errors of the forecasts on the newest bars.

The drift of each feature is kept by day. A retrain is requested by the watch's own limits; the kept history
tells which features have drifted, with a bounded share of false discoveries over features and days.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from clm_core.backtest.tearsheet import write_sections
from clm_core.decisions.drift_discoveries import FALSE_DISCOVERIES, FAMILY, discoveries
from clm_core.domain.drift_history import PREDICTION, SHAP, DriftHistory, DriftMeasurement, FeatureHistory
from clm_core.domain.errors import ExplanationUnavailable, NotFound
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.forecast_errors import forecast_errors
from clm_core.explain.drift import drift_section
from clm_core.explain.forest import boosted_of, forest_of
from clm_core.explain.tree_shap import shap_values
from clm_core.market.bars import Bars, Floats
from clm_core.market.drift import CALENDAR, Drift, drift
from clm_core.market.features import FEATURES, compute_features
from clm_core.models.contract import Model
from clm_core.models.params import feature_names
from clm_core.retraining.judging import out_of_sample_positions
from clm_core.services import Services

MAX_EXPLAINED = 4_000
"""Number of training rows whose SHAP values are the reference, evenly spaced: the rest would tell little
more."""


def drift_history(services: Services, model_id: str, days: int) -> DriftHistory:
    """Kept drift of the production version of a model.

    Args:
        days: days of measurements, back from the present day.

    Raises:
        NotFound: no version of the model is in production.
    """
    label = services.ledger.promotions.champion(model_id)
    if label is None:
        raise NotFound(
            f"No version of {model_id} is in production: drift is measured of production versions alone. "
            "`clm models` lists the models."
        )
    version = services.ledger.version(model_id, label)
    today = services.clock().date()
    kept = services.ledger.drift.since(model_id, label, today - timedelta(days=days))
    newest_day = max((each.day for each in kept), default=None)
    drifted = () if newest_day is None else discovered(services, version, newest_day)
    by_name = defaultdict[str, list[DriftMeasurement]](list)
    for each in kept:
        by_name[each.name].append(each)
    features = (
        FeatureHistory(name=name, drifted=name in drifted, measurements=tuple(measured))
        for name, measured in by_name.items()
    )
    return DriftHistory(
        model_id=model_id,
        version=label,
        newest_day=newest_day,
        features=tuple(sorted(features, key=lambda each: -each.measurements[-1].score)),
    )


def write_drift_page(services: Services, history: DriftHistory) -> Path:
    """Write a self-contained page with the drift by week; returns the path."""
    path = services.reports / history.model_id / f"{history.version}-drift.html"
    subtitle = "Distance of the newest bars from the training, as the watch kept it by day."
    return write_sections(path, history.model_id, history.version, subtitle, [drift_section(history)])


def feature_drift(version: ModelVersion, model: Model, bars: Bars, first_new: int, days: int) -> Drift | None:
    """Drift of the features of the model; of all features if the parameters name none.

    Args:
        first_new: first row after the training.
        days: days of newest bars to compare, all of which must be after the training.
    """
    first = len(bars) - len(bars.last_days(days))
    if first < first_new:
        return None
    begin = max(0, first_new - model.trained_on.bars)
    features = feature_names(version.params) or FEATURES
    table = compute_features(bars[begin:], [name for name in features if name not in CALENDAR])
    trained = slice(0, first_new - begin)
    newest = slice(first - begin, None)
    values = table.values
    complete = table.complete
    return drift(values[trained][complete[trained]], values[newest][complete[newest]], table.names)


def usage_drift(
    services: Services, version: ModelVersion, model: Model, bars: Bars, first_new: int, days: int
) -> Drift | None:
    """Drift of the SHAP values of a version of trees: of what the version uses.

    None for other kinds, and where the drift of the day is kept already: SHAP values of the training rows
    take a second.

    Args:
        first_new: first row after the training.
        days: days of newest bars to compare, all of which must be after the training.
    """
    first = len(bars) - len(bars.last_days(days))
    kept = services.ledger.drift.since(version.model_id, version.version, services.clock().date())
    if first < first_new or any(each.name.startswith(SHAP) for each in kept):
        return None
    try:
        boosted = boosted_of(model)
        forest = forest_of(model)
    except ExplanationUnavailable:
        return None
    begin = max(0, first_new - model.trained_on.bars)
    table = compute_features(bars[begin:], boosted.params.features)
    step = max(1, (first_new - begin) // MAX_EXPLAINED)
    rows = np.flatnonzero(table.complete)[::step]
    values = shap_values(forest, table.values[rows]).values
    trained = values[rows < first_new - begin]
    newest = values[rows >= first - begin]
    return drift(trained, newest, [SHAP + name for name in table.names])


def prediction_drift(
    services: Services, version: ModelVersion, bars: Bars, positions: Floats, days: int
) -> Drift | None:
    """Drift of the version's positions against the out-of-sample positions of the walk-forward.

    Args:
        bars: bars of the market.
        positions: positions of the version on the bars after the training, shape (n_new_bars,).
        days: days of newest bars to compare, all of which must be after the training.
    """
    newest = len(bars.last_days(days))
    if newest > len(positions):
        return None
    reference = out_of_sample_positions(services, version, bars.symbol)
    if reference is None:
        return None
    return drift(reference[:, None], positions[len(positions) - newest :, None], [PREDICTION])


def errors_since(version: ModelVersion, model: Model, bars: Bars, first_new: int) -> Floats:
    """Errors of the forecasts after the training, a horizon apart, shape (n_errors,); empty for a model
    without forecasts."""
    horizon = _horizon(version)
    if horizon is None:
        return np.zeros(0)
    begin = first_row_for(model, first_new)
    recent = bars[begin:]
    return forecast_errors(model.forecast(recent), recent, horizon, first_new - begin)


def positions_from(model: Model, bars: Bars, row: int) -> Floats:
    """Positions of a version on the bars from a row after the training on, shape (n_bars - row,)."""
    begin = first_row_for(model, row)
    return model.positions(bars[begin:])[row - begin :]


def first_row_for(model: Model, row: int) -> int:
    """First row to give a model for its answers from a row after the training on.

    As many bars as in the training cover every look-back, and bound the computation of a network.
    """
    return max(0, row - max(model.trained_on.bars, model.bars_needed or 0))


def _horizon(version: ModelVersion) -> int | None:
    """Horizon of the forecasts, bars: the fitted one, or that of the parameters."""
    horizon = version.train_metrics.get("horizon", version.params.get("horizon"))
    return int(horizon) if isinstance(horizon, int | float) and horizon >= 1 else None


def record_drift(
    services: Services, version: ModelVersion, drifts: Sequence[tuple[str, Drift | None]]
) -> tuple[str, ...]:
    """Keep the drift of the day, and name what has drifted by the history of the version.

    Args:
        drifts: prefix of the names, as "ETHUSDT/" for a member of a pool, and drift.
    """
    today = services.clock().date()
    measured = [
        DriftMeasurement(day=today, **each.model_dump() | {"name": prefix + each.name})
        for prefix, drifted in drifts
        for each in (() if drifted is None else drifted.by_feature)
    ]
    services.ledger.drift.record(version.model_id, version.version, measured)
    return discovered(services, version, today)


def discovered(services: Services, version: ModelVersion, day: date) -> tuple[str, ...]:
    """Names that have drifted on a day, by the measurements up to it."""
    first = day - FAMILY + timedelta(days=1)
    tests, small = services.ledger.drift.small(
        version.model_id, version.version, first, day, FALSE_DISCOVERIES
    )
    return discoveries(small, day, tests)
