"""Records as pandas tables: a row a record, moments in UTC, fractions as fractions (0.1 is 10 %)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from clm_core.backtest.results import Backtest
from clm_core.backtest.tearsheet import drawdown
from clm_core.decisions.staleness import age_of
from clm_core.domain.evaluations import Check, EvaluationResult, FoldSummary
from clm_core.domain.explanations import Section
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.listings import ListedVersion
from clm_core.domain.overviews import ModelOverview
from clm_core.explain.equity_overlay import TradedCurve
from clm_core.market.bars import Bars, Floats
from clm_core.market.newest_bars import NewestBar
from clm_core.market.sources import SeriesInfo

Row = Mapping[str, Any]

SERIES = (
    "symbol",
    "timeframe",
    "calendar",
    "bars",
    "start",
    "end",
    "late_bars",
    "is_stale",
    "gaps",
    "missing_bars",
    "source",
)
MODELS = ("model_id", "state", "production", "since", "awaiting")
VERSIONS = (
    "model_id",
    "version",
    "status",
    "passed",
    "sharpe_ratio",
    "sharpe_low",
    "sharpe_high",
    "net_return",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "trades",
    "score",
    "symbol",
    "timeframe",
)
JOBS = (
    "job",
    "model_id",
    "status",
    "reason",
    "requested_by",
    "started",
    "finished",
    "params",
    "failure_cause",
)
CHECKS = ("check", "kind", "value", "low", "high", "comparison", "limit", "status")
FOLDS = ("start", "end", "skill", "sharpe_ratio", "exposure", "trades", "remarks")


def series_table(series: Iterable[SeriesInfo], now: datetime, stale_bars: int) -> pd.DataFrame:
    """A row a series, with the columns `SERIES`; `start` and `end` are open times of bars.

    Args:
        now: moment of the measurement of late bars.
        stale_bars: number of late bars of a stale series.
    """
    rows = []
    for each in series:
        age = age_of(NewestBar(each.symbol, each.timeframe, each.calendar, each.end), now, stale_bars)
        known = {"late_bars": age.late_bars, "is_stale": age.is_stale}
        rows.append([known[name] if name in known else _plain(getattr(each, name)) for name in SERIES])
    return pd.DataFrame(rows, columns=SERIES)


def models_table(models: Iterable[ModelOverview]) -> pd.DataFrame:
    """A row a model, by id: state, production version with its start, versions awaiting a decision."""
    rows = [
        {
            "model_id": each.model_id,
            "state": each.state.value,
            "production": None if each.champion is None else each.champion.version,
            "since": None if each.champion is None or each.change is None else each.change.at,
            "awaiting": len(each.challengers),
        }
        for each in models
    ]
    table = pd.DataFrame(rows, columns=MODELS).set_index("model_id")
    return table.assign(since=_moments(table["since"]))


def versions_table(versions: Iterable[ListedVersion]) -> pd.DataFrame:
    """A row a version with the newest evaluation, over the time of the registration.

    The figures of a version never judged are missing (NaN, NaT or None).
    """
    rows = [
        {
            "registered": each.version.created_at,
            "model_id": each.version.model_id,
            "version": each.version.version,
            "status": each.version.status.value,
            "symbol": each.version.symbol,
            "timeframe": each.version.timeframe,
            "sharpe_low": None if each.sharpe_interval is None else each.sharpe_interval.low,
            "sharpe_high": None if each.sharpe_interval is None else each.sharpe_interval.high,
            **({} if each.evaluation is None else _figures(each.evaluation)),
        }
        for each in versions
    ]
    return _over_time(rows, "registered", VERSIONS)


def jobs_table(jobs: Iterable[TrainingJob]) -> pd.DataFrame:
    """A row a training job, over the time of the request."""
    rows = [
        {
            "requested": each.created_at,
            "job": str(each.id),
            "model_id": each.model_id,
            "status": each.status.value,
            "reason": each.trigger_reason.value,
            "requested_by": each.requested_by,
            "started": each.started_at,
            "finished": each.finished_at,
            "params": each.training_params,
            "failure_cause": each.failure_cause,
        }
        for each in jobs
    ]
    table = _over_time(rows, "requested", JOBS)
    return table.assign(**{name: _moments(table[name]) for name in ("started", "finished")})


def checks_table(checks: Iterable[Check]) -> pd.DataFrame:
    """A row a check of a verdict, by name, with the columns `CHECKS`."""
    rows = [
        {
            "check": each.name,
            "kind": each.kind.value,
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "comparison": each.comparison,
            "limit": each.limit,
            "status": each.status.value,
        }
        for each in checks
    ]
    return pd.DataFrame(rows, columns=CHECKS).set_index("check")


def folds_table(folds: Sequence[FoldSummary]) -> pd.DataFrame:
    """A row a fold of the walk-forward, numbered from 1, with the columns `FOLDS`."""
    rows = [{name: getattr(each, name) for name in FOLDS} for each in folds]
    table = pd.DataFrame(rows, columns=FOLDS, index=pd.RangeIndex(1, len(rows) + 1, name="fold"))
    return table.assign(start=_moments(table["start"]), end=_moments(table["end"]))


def equity_table(bars: Bars, backtest: Backtest, initial_cash: float) -> pd.DataFrame:
    """A row a bar over the open times: equity (cash), returns, drawdown (negative), exposure."""
    columns = {
        "equity": backtest.equity,
        "returns": backtest.returns,
        "drawdown": drawdown(backtest.equity, initial_cash),
        "exposure": backtest.exposure,
    }
    return pd.DataFrame(columns, index=bars.index)


def positions_table(bars: Bars, positions: Floats, forecast: Floats) -> pd.DataFrame:
    """A row a bar over the open times: position (-1..1) and forecast (0..1, or NaN)."""
    return pd.DataFrame({"position": positions, "forecast": forecast}, index=bars.index)


def pairs_table(names: Sequence[str], pairs: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """A row a name of `pairs`, a column a version."""
    return pd.DataFrame(
        [list(each) for each in pairs.values()], index=list(pairs), columns=list(names), dtype=object
    )


def curves_table(names: Sequence[str], pair: tuple[TradedCurve, TradedCurve] | None) -> pd.DataFrame:
    """Equity of two versions over the closes of the bars, a column each; without rows for None."""
    if pair is None:
        return pd.DataFrame(
            columns=list(names), index=pd.DatetimeIndex([], tz="UTC", name="close"), dtype=float
        )
    curves = [
        pd.Series(each.equity, index=pd.DatetimeIndex(pd.to_datetime(each.closes, utc=True), name="close"))
        for each in pair
    ]
    return pd.concat(curves, axis=1, keys=list(names))


def section_tables(section: Section) -> dict[str, pd.DataFrame]:
    """Tables of an explanation with formatted cells, by title; a table without title by the section's."""
    return {
        table.title or section.title: pd.DataFrame(list(table.rows), columns=list(table.columns)).set_index(
            table.columns[0]
        )
        for table in section.tables
    }


def _figures(evaluation: EvaluationResult) -> Row:
    return {
        "passed": evaluation.passed,
        "sharpe_ratio": evaluation.sharpe_ratio,
        "net_return": evaluation.total_pnl,
        "max_drawdown": evaluation.max_drawdown,
        "win_rate": evaluation.win_rate,
        "profit_factor": evaluation.profit_factor,
        "trades": evaluation.trades,
        "score": evaluation.promotion_score,
    }


def _over_time(rows: Sequence[Row], time: str, columns: Sequence[str]) -> pd.DataFrame:
    """Table over moments in UTC; also without rows."""
    index = pd.DatetimeIndex(pd.to_datetime([row[time] for row in rows], utc=True), name=time)
    return pd.DataFrame(
        [[row.get(name) for name in columns] for row in rows], index=index, columns=list(columns)
    )


def _moments(column: "pd.Series[Any]") -> "pd.Series[Any]":
    return pd.to_datetime(column, utc=True)


def _plain(value: Any) -> Any:
    """Text of an enumeration or a calendar; numbers and moments as they are."""
    return value if isinstance(value, int | float) or hasattr(value, "tzinfo") else str(value)
