"""Scoring by `mlflow.pyfunc`: tables in the spellings of MLflow's clients, and errors in the words of Python.

The serving code stored beside a version (`serving`) calls `Scorer`; so `Scorer.load`, `Scorer.predict`,
`Scorer.execution` and their arguments stay as they are.

A table comes as a pandas frame, or over HTTP as `dataframe_split`, `dataframe_records` or CSV. Times may be
times (without a zone: UTC), ISO 8601 text (without a zone: UTC), or a count of s, ms, us or ns since 1970.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, DataType

from clm_core.domain.errors import CLMError, ConflictError, DataError, Finding, InvalidBars
from clm_core.domain.spellings import normalise_symbol
from clm_core.market import own_features
from clm_core.market.bar_rules import OVERRULABLE
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.series import PREFIX
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.times import EPOCH_BOUNDS
from clm_core.market.validation import validate
from clm_core.models.bundle import load_bundle
from clm_core.models.contract import Model, require_bars_needed
from clm_core.models.pooled import PooledModel
from clm_core.models.sizing import execution_of
from clm_core.registry.bundle_checks import checks_of
from clm_core.registry.loading import advice_on
from clm_core.settings import load_settings

ORIGIN = "the bars given to predict()"
ZONED = re.compile(r"(?:\dZ|\d[+-]\d{2}:?\d{2}|:\d{2}(?:\.\d+)?[+-]\d{2})$")
NOT_HERE = {"out-of-order", "ambiguous-time", "other-symbol"}
"""Rules that cannot be overruled here: the answer has the rows of the table, and a table names no symbol or
local time."""
_ANY = AnyType()  # type: ignore[no-untyped-call]
SIGNATURE = ModelSignature(
    # times are datetimes, text or numbers, and MLflow refuses whole numbers for a column of floats
    inputs=Schema(
        [
            ColSpec(_ANY, "timestamp", required=False),
            *(ColSpec(_ANY, field) for field in FIELDS),
        ]
    ),
    outputs=Schema([ColSpec("double", "position"), ColSpec("double", "forecast")]),
    params=ParamSchema([ParamSpec("allow", "string", "")]),
)
"""Columns of the table and of the answer. The bar-open times are the column `timestamp` or the index."""
POOL_PARAMS = ParamSchema([ParamSpec("allow", "string", ""), ParamSpec("symbol", "string", "")])
"""Parameters of a pooled model: `symbol` names the member that the bars belong to."""


def signature_with(series: Sequence[str], pooled: bool = False) -> ModelSignature:
    """Signature of a version.

    Args:
        series: own series of the version: a column `series.NAME` for each.
        pooled: True for a pooled model, with the symbol as a parameter.
    """
    columns = [
        *SIGNATURE.inputs.inputs,
        *(ColSpec(_ANY, f"{PREFIX}{name}", required=False) for name in series),
    ]
    params = POOL_PARAMS if pooled else SIGNATURE.params
    return ModelSignature(inputs=Schema(columns), outputs=SIGNATURE.outputs, params=params)


IN_PYTHON: Mapping[str, str] = {
    "unreadable-time": "the time is missing, or neither ISO 8601 nor a count of s, ms, us or ns since 1970",
    "newest-first": "the newest bar comes first: sort the rows by time",
    "out-of-order": "a bar is out of order: sort the rows by time after finding out why",
    "closed-market": "the market is closed then: give bar-open times in UTC",
    "open-bar": "the bar is still open and will change: leave it out",
    "overlapping-bars": "the bar opens before the one before has closed: give bars of the model's timeframe",
    "other-spacing": "the bars are further apart than the model's timeframe",
    "wrong-time-zone": "the bars open off the UTC grid: give bar-open times in UTC",
    "off-grid": "the time is no multiple of the timeframe: give the open time of each bar, not the close",
    "missing-columns": "a column is missing: give timestamp, open, high, low, close and volume",
}
"""Messages of rules whose remedy in an import is an option of a command."""


class InputRefused(MlflowException, DataError):
    """The table cannot be used; MLflow's scoring server answers 400 with the message."""


@dataclass(frozen=True)
class Scorer:
    """A loaded version, answering tables of bars of its series."""

    model: Model
    symbol: str
    timeframe: Timeframe
    calendar: Calendar

    @classmethod
    def load(cls, bundle: Path, config: Mapping[str, Any]) -> "Scorer":
        """Verified version of a bundle, with the ledger's consent where the ledger can be asked (`loading`).

        Args:
            config: `model_config` of the version: bundle_digest, symbol, timeframe and calendar.

        Raises:
            BundleCorrupt: the bundle is not the bundle of the digest.
            ConflictError: the alias `production` names the version, and no promotion put it there.
        """
        accept_any_column_in_csv()
        if not own_features.files_chosen():
            # own features come from the settings of this process, never from a bundle or a request
            own_features.use_files_of(lambda: load_settings().features.files)
        _require_may_serve(config["bundle_digest"])
        model = load_bundle(bundle, digest=config["bundle_digest"])
        _warn_of_problems(bundle, f"the version of {config['symbol']} {config['timeframe']}")
        return cls(
            model,
            config["symbol"],
            Timeframe(config["timeframe"]),
            Calendar(config["calendar"]),
        )

    def predict(
        self, table: pd.DataFrame, now: datetime, params: Mapping[str, Any] | None = None
    ) -> "Predictions":
        """Positions and forecasts for a table of closed bars, one row a bar, over the same index.

        Args:
            params: optional `allow`, names of rules that the bars may break, separated by commas; `symbol`,
                the member of a pool that the bars belong to.

        Raises:
            InputRefused: the table breaks a rule, has fewer bars than `Model.bars_needed`, or the symbol is
                missing or no member of the pool.
        """
        try:
            symbol = _symbol(self.model, self.symbol, params or {})
            bars = self._bars(table, now, _allowed(params or {}), symbol)
            require_bars_needed(self.model, len(bars), "predict()")
            answer = {"position": self.model.positions(bars), "forecast": self.model.forecast(bars)}
        except DataError as error:
            raise InputRefused(_in_python(error), error_code=INVALID_PARAMETER_VALUE) from error
        except CLMError as error:
            raise MlflowException(str(error), error_code=INTERNAL_ERROR) from error
        return Predictions(answer, index=table.index)

    @property
    def execution(self) -> dict[str, Any]:
        """Execution rules of the version, JSON-ready: those under which it was judged."""
        return execution_of(self.model).model_dump(mode="json")

    def _bars(self, table: pd.DataFrame, now: datetime, allow: frozenset[str], symbol: str) -> Bars:
        if "timestamp" not in table.columns and isinstance(table.index, pd.DatetimeIndex):
            table = table.assign(timestamp=table.index)
        table = table.reset_index(drop=True)
        columns: dict[str, Any] = {name: table[name] for name in ("timestamp", *FIELDS) if name in table}
        for name in columns.keys() & set(FIELDS):
            columns[name] = _numbers(columns[name])
        if "timestamp" not in columns:
            raise InvalidBars(ORIGIN, [Finding("missing-columns", (), 0, "no timestamp")])
        if len(table):
            columns["timestamp"] = _times(columns["timestamp"])
            if columns["timestamp"].dropna().duplicated().any():
                first = int(columns["timestamp"].duplicated().argmax())
                message = "the time was there before: keep one bar of each"
                raise InvalidBars(ORIGIN, [Finding("duplicate-time", (first,), 1, message)])
        frame = pd.DataFrame(columns)
        bars = validate(frame, symbol, self.timeframe, self.calendar, now=now, origin=ORIGIN, allow=allow)
        given = [str(name) for name in table if str(name).startswith(PREFIX)]
        series = {
            name.removeprefix(PREFIX): np.asarray(_numbers(table[name]), dtype=np.float64) for name in given
        }
        return replace(bars, series=series)


class Predictions(pd.DataFrame):
    """Columns `position` and `forecast`; an unknown forecast is NaN here and null in JSON."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def to_dict(self, orient: Any = "dict", **options: Any) -> Any:
        # MLflow's scoring server writes the records as JSON, in which NaN is no value
        if orient != "records":
            return super().to_dict(orient, **options)
        plain = pd.DataFrame(self)
        return plain.astype(object).where(plain.notna(), None).to_dict("records", **options)


def _require_may_serve(bundle_digest: str) -> None:
    advice = advice_on(bundle_digest, mlflow.get_registry_uri())
    if advice.refusal is not None:
        raise ConflictError(advice.refusal)
    if advice.warning is not None:
        warnings.warn(advice.warning, stacklevel=2)


def _warn_of_problems(bundle: Path, name: str) -> None:
    """Warn of an unsound model; the alias of the load is not known here, so nothing is refused."""
    problems = checks_of(bundle).problems
    if problems:
        warnings.warn(f"{name} is not sound: {'; '.join(problems)}", stacklevel=3)


def accept_any_column_in_csv() -> None:
    """Let MLflow's scoring server read CSV for a signature with columns of any type, as text.

    MLflow 3.17 reads JSON for such a signature, and refuses CSV.
    """
    mlflow_types = Schema.pandas_types
    if getattr(mlflow_types, "reads_any_column", False):
        return

    def pandas_types(schema: Schema) -> list[Any]:
        if schema.is_tensor_spec() or not any(isinstance(kind, AnyType) for kind in schema.input_types()):
            types: list[Any] = mlflow_types(schema)
            return types
        kinds = schema.input_types()
        return [kind.to_pandas() if isinstance(kind, DataType) else np.dtype(object) for kind in kinds]

    pandas_types.reads_any_column = True  # type: ignore[attr-defined]
    Schema.pandas_types = pandas_types  # type: ignore[method-assign,assignment]


def _symbol(model: Model, trained_on: str, params: Mapping[str, Any]) -> str:
    """Symbol of the bars of a table: the symbol of the training, or the named member of a pool."""
    named = str(params.get("symbol") or "")
    if not isinstance(model, PooledModel):
        return trained_on
    members = ", ".join(model.symbols)
    if not named:
        raise DataError(
            f"{trained_on} is a pool of {members}: name the symbol of the bars, as "
            f'predict(bars, params={{"symbol": "{model.symbols[0]}"}})'
        )
    symbol = normalise_symbol(named)
    if symbol not in model.symbols:
        raise DataError(f"the pool {trained_on} has no member {symbol}: give bars of one of {members}")
    return symbol


def _allowed(params: Mapping[str, Any]) -> frozenset[str]:
    names = [name.strip() for name in str(params.get("allow") or "").split(",")]
    allowed = frozenset(name for name in names if name)
    rules = sorted(OVERRULABLE.keys() - NOT_HERE)
    if unknown := sorted(allowed - set(rules)):
        raise DataError(
            f"allow={', '.join(unknown)}: no such rule may be broken; choose from {', '.join(rules)}"
        )
    return allowed


def _numbers(column: "pd.Series[Any]") -> "pd.Series[float]":
    """Numbers of a column; NaN for text that is no number. Python reads every digit of a decimal."""
    if pd.api.types.is_numeric_dtype(column):
        return column

    def number(cell: Any) -> float:
        try:
            return float(cell)
        except (TypeError, ValueError):
            return float("nan")

    return pd.Series([number(cell) for cell in column], dtype=np.float64)


def _times(column: "pd.Series[Any]") -> "pd.Series[pd.Timestamp]":
    """Times in UTC, NaT for unreadable times.

    Raises:
        InvalidBars: the times mix units, or times with and without a zone.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.Series(pd.to_datetime(column.array, utc=True))
    known = column.dropna()
    if len(known) and known.map(lambda cell: isinstance(cell, datetime)).all():
        return _of_objects(column)
    text = column.astype("string").str.strip()
    counts = pd.to_numeric(text, errors="coerce")
    if counts.notna().any() and bool((counts.notna() | text.isna()).all()):
        return _of_counts(column, counts.to_numpy(np.float64, na_value=np.nan))
    zoned = text.dropna().str.contains(ZONED)
    if zoned.any() and not zoned.all():
        message = "some times carry a zone and some do not: write all in UTC"
        raise InvalidBars(ORIGIN, [Finding("mixed-time-zones", (), 0, message)])
    return pd.Series(pd.to_datetime(text.array, format="ISO8601", utc=True, errors="coerce"))


def _of_objects(column: "pd.Series[Any]") -> "pd.Series[pd.Timestamp]":
    zones = {cell.tzinfo is not None for cell in column.dropna()}
    if len(zones) > 1:
        message = "some times carry a zone and some do not: write all in UTC"
        raise InvalidBars(ORIGIN, [Finding("mixed-time-zones", (), 0, message)])
    return pd.Series(pd.to_datetime(column.array, utc=True, errors="coerce"))


def _of_counts(column: "pd.Series[Any]", counts: "np.ndarray[Any, np.dtype[np.float64]]") -> "pd.Series[Any]":
    known = np.abs(counts[~np.isnan(counts)])
    units = np.unique(np.searchsorted(EPOCH_BOUNDS, known, side="right"))
    if len(units) > 1:
        message = "the times mix several units: write all in one unit"
        raise InvalidBars(ORIGIN, [Finding("mixed-time-units", (), 0, message)])
    if units[0] == 0:
        message = f"{column.iloc[0]} is no count of s, ms, us or ns since 1970: write times as ISO 8601"
        raise InvalidBars(ORIGIN, [Finding("unreadable-time", (), 0, message)])
    # nanoseconds in a unit
    factor = 10 ** (9 - 3 * (int(units[0]) - 1))
    # whole numbers: a float has too few digits for nanoseconds
    nanoseconds = [
        pd.NaT.value if np.isnan(count) else _whole(cell) * factor + round(count % 1 * factor)
        for cell, count in zip(column, counts, strict=True)
    ]
    times = np.array(nanoseconds, dtype=np.int64).view("datetime64[ns]")
    return pd.Series(pd.to_datetime(times, utc=True))


def _whole(cell: Any) -> int:
    try:
        return int(cell)
    except ValueError:
        # text with a decimal point
        return int(float(cell))


def _in_python(error: DataError) -> str:
    """Message without options of commands."""
    if not isinstance(error, InvalidBars):
        return str(error)
    return str(InvalidBars(ORIGIN, [_finding_in_python(finding) for finding in error.findings]))


def _finding_in_python(finding: Finding) -> Finding:
    text, first, example = finding.message.partition(". First: ")
    text = IN_PYTHON.get(finding.rule, text.partition(". Meant so:")[0])
    if finding.rule in OVERRULABLE.keys() - NOT_HERE:
        text += f'. Meant so: predict(bars, params={{"allow": "{finding.rule}"}})'
    return Finding(finding.rule, finding.rows, finding.count, f"{text}{first}{example}")
