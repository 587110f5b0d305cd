"""Golden rows: a model's answers at the time of saving, repeated as a check after loading.

The last training bars and the model's answers to exactly the same bars, as JSON beside the model in the
bundle. JSON written by Python keeps every bit of a float64, so trees have to give identical answers; answers
of a network may differ by `ModelKind.tolerance`, because sums differ slightly between processors.

A model with a single answer to all bars has learned nothing and is refused. Rare changes suffice: where the
no-trade band of the sizing hides the changes of the signal, the signal is recorded as well, and where the
signal does not change on the last bars, the bars up to the newest change are recorded.
"""

import math
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from clm_core.domain.errors import BundleCorrupt, PreflightFailed
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.contract import Model, TrainedOn
from clm_core.models.pooled import PooledModel, view_of
from clm_core.models.sizing import signal_of

FILE = "golden.json"
ROWS = 500
"""Least number of bars recorded: the look-back of the features (150) and enough further bars to vary."""


class GoldenRows(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    time: list[int]
    """Bar-open times, nanoseconds since 1970-01-01 UTC."""
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    positions: list[float]
    forecast: list[float | None]
    """None in rows without a full look-back."""
    series: dict[str, list[float | None]] = {}
    """Own series by name; None where no value was known."""
    signal: list[float] | None = None
    """Signals before the sizing, recorded where positions and forecasts never vary and signals do."""

    @model_validator(mode="after")
    def _one_row_a_bar(self) -> Self:
        named = [getattr(self, name) for name in type(self).model_fields if name not in ("series", "signal")]
        signal = [] if self.signal is None else [self.signal]
        lengths = {len(column) for column in (*named, *self.series.values(), *signal)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"columns of {sorted(lengths)} rows")
        return self

    def bars(self, series: TrainedOn) -> Bars:
        columns: dict[str, Any] = {name: np.array(getattr(self, name), dtype=np.float64) for name in FIELDS}
        time = np.array(self.time, dtype=np.int64)
        own = {name: np.array(values, dtype=np.float64) for name, values in self.series.items()}
        return Bars(
            series.symbol,
            series.timeframe,
            series.calendar,
            time,
            **columns,
            gap_rules=series.gap_rules,
            series=own,
        )


def rows_of(model: Model) -> int:
    """Number of bars recorded of a model: as many as serving demands, at least `ROWS`."""
    return max(ROWS, model.bars_needed or 0)


def is_golden(name: str) -> bool:
    """True for a file name of golden rows, of a model of one series or of a pool's member."""
    return name == FILE or (name.startswith("golden-") and name.endswith(".json"))


def member_file(number: int) -> str:
    """File of the golden rows of a member of a pooled model, by the place in the pool."""
    return f"golden-{number}.json"


def record(model: Model, bars: Bars | Panel, folder: Path) -> None:
    """Write the golden rows of a model fitted on the bars; those of each member of a pooled model."""
    if isinstance(bars, Bars):
        _record(model, bars, folder / FILE)
        return
    for number, member in enumerate(bars):
        _record(view_of(model, member.symbol), member, folder / member_file(number))


def _record(model: Model, bars: Bars, path: Path) -> None:
    rows, positions, forecast = _telling_rows(model, bars)
    golden = GoldenRows(
        time=rows.time.tolist(),
        **{name: getattr(rows, name).tolist() for name in FIELDS},
        positions=positions.tolist(),
        forecast=_with_none(forecast),
        series={name: _with_none(values) for name, values in rows.series.items()},
        signal=_hidden_signal(model, rows, positions, forecast),
    )
    # rows without series and signals stay readable by earlier releases
    unused = {name for name in ("series", "signal") if not getattr(golden, name)}
    path.write_text(golden.model_dump_json(exclude=unused))


def _telling_rows(model: Model, bars: Bars) -> tuple[Bars, Floats, Floats]:
    """The last rows, or the rows up to the signal's newest change if no answer and no signal varies there,
    with the positions and the forecasts on the rows."""
    count = rows_of(model)
    last = bars[-count:]
    positions = model.positions(last)
    forecast = model.forecast(last)
    answered = last, positions, forecast
    if not (_constant(positions) and _constant(forecast)):
        return answered
    if len(_changes(signal_of(model, last), last)):
        return answered
    changes = _changes(signal_of(model, bars), bars)
    if not len(changes):
        return answered
    # one row more than needed for the answer after the change: the answer before it
    rows = bars[max(0, int(changes[-1]) - count) : int(changes[-1]) + 1]
    return rows, model.positions(rows), model.forecast(rows)


def _hidden_signal(model: Model, rows: Bars, positions: Floats, forecast: Floats) -> list[float] | None:
    """Signals that vary although positions and forecasts do not; None in all other cases."""
    if not (_constant(positions) and _constant(forecast)):
        return None
    signal = signal_of(model, rows)
    return signal.tolist() if len(_changes(signal, rows)) else None


def _changes(signal: Floats, bars: Bars) -> NDArray[np.int64]:
    """Rows in which the signal differs from that of the row before.

    The first signal of a stretch is no change: rows without a full look-back have a signal of 0.
    """
    changed = np.diff(signal, prepend=signal[:1]) != 0.0
    for rows in bars.stretches():
        answered = np.flatnonzero(signal[rows] != 0.0)
        first = rows.start + int(answered[0]) if len(answered) else rows.stop - 1
        changed[rows.start : first + 1] = False
    return np.flatnonzero(changed)


def _with_none(values: Floats) -> list[float | None]:
    """Numbers for JSON, None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def preflight(model: Model, folder: Path) -> None:
    """Compare the answers of a loaded model with the golden rows of the verified bundle.

    Raises:
        PreflightFailed: answers differ, answers are constant (those of every member of a pool), or the bundle
            has no golden rows.
        BundleCorrupt: the golden rows cannot be read.
    """
    if not isinstance(model, PooledModel):
        constant = _compare(model, folder / FILE)
    else:
        answers = [
            _compare(member, folder / member_file(number)) for number, member in enumerate(model.members)
        ]
        constant = answers[0] if None not in answers else None
    if constant is not None:
        raise PreflightFailed(
            f"the model answers {constant:g} to every golden row and has learned nothing: retrain the model"
        )


def is_flat(folder: Path) -> bool:
    """True if no golden row of a verified bundle has a position, nor a signal behind it; False without rows.

    Raises:
        BundleCorrupt: the golden rows cannot be read.
    """
    paths = [path for path in folder.iterdir() if is_golden(path.name)]
    recorded = [_read(path) for path in paths]
    moves = any(any(rows.positions) or any(rows.signal or ()) for rows in recorded)
    return bool(recorded) and not moves


def _compare(model: Model, path: Path) -> float | None:
    """The answer to every golden row if all answers and all signals are the same, else None.

    Raises:
        PreflightFailed: answers differ, or there are no golden rows.
    """
    golden = _read(path)
    bars = golden.bars(model.trained_on)
    positions = model.positions(bars)
    forecast = model.forecast(bars)
    constant = _constant(positions) and _constant(forecast)
    signal = signal_of(model, bars) if constant or golden.signal is not None else None
    recorded = np.array(golden.forecast, dtype=np.float64)
    tolerance = catalog.tolerance(model)
    same = _same(positions, golden.positions, tolerance) & _same(forecast, recorded, tolerance)
    if signal is not None and golden.signal is not None:
        same &= _same(signal, golden.signal, tolerance)
    if not same.all():
        raise PreflightFailed(
            f"the model gives other answers here than at the time of saving, on "
            f"{np.count_nonzero(~same)} of {len(bars)} golden rows of {bars.symbol}, first at "
            f"{bars.index[int(np.argmin(same))]}: install the library versions named in model.json, or "
            "retrain the model"
        )
    if not constant or (signal is not None and len(_changes(signal, bars))):
        return None
    return float(positions[0])


def _read(path: Path) -> GoldenRows:
    if not path.exists():
        raise PreflightFailed(
            "the model has no golden rows (saved by a release without golden rows): retrain the model"
        )
    try:
        return GoldenRows.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(f"{path} cannot be read as golden rows: train the model again") from error


def _same(one: Floats, other: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    return np.isclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True)


def _constant(answers: Floats) -> bool:
    known = answers[~np.isnan(answers)]
    return bool(np.all(known == known[:1]))
