"""Golden rows: a model's answers at the time of saving, repeated as a check after loading.

The last training bars and the model's answers to exactly the same bars, as JSON beside the model in the
bundle. JSON written by Python keeps every bit of a float64, so trees have to give identical answers; answers
of a network may differ by `ModelKind.tolerance`, because sums differ slightly between processors.
"""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from clm_core.domain.errors import BundleCorrupt, PreflightFailed
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.contract import Model, TrainedOn
from clm_core.models.pooled import PooledModel, view_of

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

    @model_validator(mode="after")
    def _one_row_a_bar(self) -> Self:
        columns = [getattr(self, name) for name in type(self).model_fields if name != "series"]
        lengths = {len(column) for column in (*columns, *self.series.values())}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"columns of {sorted(lengths)} rows")
        return self

    def bars(self, series: TrainedOn) -> Bars:
        columns = {name: np.array(getattr(self, name), dtype=np.float64) for name in FIELDS}
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
    last = bars[-rows_of(model) :]
    answers = model.forecast(last)
    golden = GoldenRows(
        time=last.time.tolist(),
        **{name: getattr(last, name).tolist() for name in FIELDS},
        positions=model.positions(last).tolist(),
        forecast=_with_none(answers),
        series={name: _with_none(values) for name, values in last.series.items()},
    )
    # rows without series stay readable by earlier releases
    unused = None if golden.series else {"series"}
    path.write_text(golden.model_dump_json(exclude=unused))


def _with_none(values: Floats) -> list[float | None]:
    """Numbers for JSON, None for NaN."""
    return [None if np.isnan(value) else value for value in values.tolist()]


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


def _compare(model: Model, path: Path) -> float | None:
    """The answer to every golden row if all are the same, else None.

    Raises:
        PreflightFailed: answers differ, or there are no golden rows.
    """
    golden = _read(path)
    bars = golden.bars(model.trained_on)
    positions, forecast = model.positions(bars), model.forecast(bars)
    recorded = np.array(golden.forecast, dtype=np.float64)
    tolerance = catalog.tolerance(model)
    differs = ~(_same(positions, golden.positions, tolerance) & _same(forecast, recorded, tolerance))
    if differs.any():
        raise PreflightFailed(
            f"the model gives other answers here than at the time of saving, on "
            f"{np.count_nonzero(differs)} of {len(bars)} golden rows of {bars.symbol}, first at "
            f"{bars.index[int(np.argmax(differs))]}: install the library versions named in model.json, or "
            "retrain the model"
        )
    return float(positions[0]) if _constant(positions) and _constant(forecast) else None


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
