"""What serves is looked at on the newest bars: is it stale, and does it earn what it should?

Nothing is decided here: the door is asked, and what it answered is in the report. A model that cannot be
looked at keeps none of the others from it.
"""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.decisions import health, staleness
from clm_core.decisions.health import HealthFinding, Performance, confidence_below, judge
from clm_core.decisions.staleness import Due, Serving
from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer, TriggerRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.market.bars import Bars, Floats
from clm_core.market.drift import CALENDAR, Drift, drift
from clm_core.market.features import FEATURES, compute_features
from clm_core.models.contract import Model
from clm_core.operations.attempts import attempt, report_problems
from clm_core.operations.pages import Row, formatted, page
from clm_core.services import Services
from clm_core.triggers import intake

WATCH = Actor(name="watch", role=Role.OPERATOR)
MOST_MODELS = 1000


class Watched(BaseModel):
    """A version that serves, on the newest bars of its market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    trained_at: AwareDatetime
    age_days: float
    newest_bar: AwareDatetime
    """Open time of the market's last bar."""
    new_bars: int
    """Bars after the last one it was trained on."""
    performance: Performance
    finding: HealthFinding
    because: str
    """The finding in words."""
    drift: Drift | None
    """Of the features of its newest bars; None: there are too few, of them or of its training."""
    asked: tuple[Answer, ...]
    """What was asked of the door, and what it answered."""


class WatchReport(BaseModel):
    """What one pass saw and asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    models: tuple[Watched, ...]
    problems: tuple[str, ...]
    """What could not be looked at, and why."""

    @property
    def headline(self) -> str:
        if not self.models and not self.problems:
            return "No model serves: there is nothing to watch. `clm promote` lets one serve."
        replies = Counter(answer.reply for each in self.models for answer in each.asked)
        asked = ", ".join(f"{count} {reply}" for reply, count in replies.items())
        failed = f"; {len(self.problems)} could not be looked at" if self.problems else ""
        return f"Models watched: {len(self.models)}{failed}. Retrains asked for: {asked or 'none'}."


def run(services: Services) -> WatchReport:
    """Look at everything that serves, in turn."""
    serving = services.ledger.versions(status=ModelStatus.PRODUCTION, limit=MOST_MODELS)
    models, problems = list[Watched](), list[str]()
    for number, version in enumerate(sorted(serving, key=lambda each: each.model_id)):
        services.announce(f"Watching {version.model_id}", number / len(serving))
        seen, problem = attempt(f"{version.model_id}@{version.version}", partial(_watch, services, version))
        models += [] if seen is None else [seen]
        problems += problem
    report_problems(services, "watch", "clm watch", problems)
    return WatchReport(at=services.clock(), models=tuple(models), problems=tuple(problems))


def rows(report: WatchReport) -> list[Row]:
    """A row a model, for people; its version's label says when it was trained."""
    return [
        {
            "model": each.model_id,
            "version": each.version,
            "age": f"{each.age_days:.1f} d",
            "new bars": f"{each.new_bars:,}",
            "trades": str(each.performance.trades),
            "Sharpe since": formatted(each.performance.sharpe_ratio, ".2f"),
            "drawdown": formatted(each.performance.max_drawdown, ".1%"),
            "drift": formatted(None if each.drift is None else each.drift.score, ".2f"),
            "finding": each.finding.replace("_", " "),
            "newest bar (UTC)": f"{each.newest_bar:%Y-%m-%d %H:%M}",
        }
        for each in report.models
    ]


def summary_lines(report: WatchReport) -> list[str]:
    """What was found of each model and what was asked for and answered, then what could not be looked at."""
    return [*(f"{each.model_id}: {'. '.join(_sentences(each))}." for each in report.models), *report.problems]


def summary_page(report: WatchReport) -> str:
    """Markdown for a run's page."""
    return page(rows(report), summary_lines(report))


def _sentences(watched: Watched) -> Iterator[str]:
    yield watched.because
    if watched.drift is not None and watched.drift.features:
        yield (
            f"drift {watched.drift.score:.2f}: further from its training than any of that's "
            f"{watched.drift.stretches} stretches are {', '.join(watched.drift.features)}"
        )
    for answer in watched.asked:
        yield f"{answer.request.training.trigger_reason} was {answer.sentence}"


def _watch(services: Services, version: ModelVersion) -> Watched:
    looked = _look(services, version)
    return looked.model_copy(update={"asked": tuple(_ask(services, version, looked))})


def _look(services: Services, version: ModelVersion) -> Watched:
    now, settings = services.clock(), services.settings
    bars = services.market.bars(version.symbol, version.timeframe, closed_by=now)
    model = services.registry.load(version.model_path, version.bundle_digest)
    new = bars.row_after(model.trained_on.end)
    seen = _performance(services, model, bars, new)
    finding, because = judge(seen, settings.watch, settings.triggers.max_sharpe_ratio)
    return Watched(
        model_id=version.model_id,
        version=version.version,
        trained_at=version.created_at,
        age_days=(now - version.created_at) / timedelta(days=1),
        newest_bar=bars.end.to_pydatetime(),
        new_bars=len(bars) - new,
        performance=seen,
        finding=finding,
        because=because,
        drift=_drift(version, model, bars, new, settings.watch.drift_days),
        asked=(),
    )


def _performance(services: Services, model: Model, bars: Bars, new: int) -> Performance:
    """On the bars from row `new` on, as far as the window reaches back."""
    settings = services.settings
    first = max(new, len(bars) - len(bars.last_days(settings.watch.window_days)))
    # as much of the past as it was trained on is plenty for its look-back, and bounds what a network computes
    known = max(0, first - model.trained_on.bars)
    positions = model.positions(bars[known:])[first - known :]
    limit = settings.triggers.max_sharpe_ratio
    return measure(bars[first:], positions, settings.costs, settings.execution, limit)


def _drift(version: ModelVersion, model: Model, bars: Bars, new: int, days: int) -> Drift | None:
    """Of the features it sees, or where it does not say which, of all."""
    first = len(bars) - len(bars.last_days(days))
    if first < new:
        return None
    begin = max(0, new - model.trained_on.bars)
    seen = version.params.get("features") or FEATURES
    table = compute_features(bars[begin:], [name for name in seen if name not in CALENDAR])
    trained, newest = slice(0, new - begin), slice(first - begin, None)
    values, complete = table.values, table.complete
    return drift(values[trained][complete[trained]], values[newest][complete[newest]], table.names)


def measure(bars: Bars, positions: Floats, costs: Costs, execution: Execution, limit: float) -> Performance:
    """Trade the positions from flat.

    Args:
        bars: all new to the version; there may be none.
        positions: the version's on them, shape (n_bars,).
        limit: annualised Sharpe ratio that the true one is asked to be below.
    """
    if not len(bars):
        return Performance()
    result = backtest(bars, positions, costs, execution)
    metrics = summarise(result, bars.periods_per_year)
    return Performance(
        bars=len(bars),
        trades=result.trades.ended,
        sharpe_ratio=_measured(metrics.sharpe_ratio),
        max_drawdown=_measured(metrics.max_drawdown),
        confidence=_measured(confidence_below(result.returns, limit, bars.periods_per_year)),
    )


def _measured(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ask(services: Services, version: ModelVersion, looked: Watched) -> Iterator[Answer]:
    policy = services.settings.triggers
    job = services.ledger.job(version.training_job_id)
    # further bars make it another request: a retrain on the same ones would end as the last did
    facts = looked.new_bars // policy.min_new_samples
    serving = Serving(looked.model_id, looked.trained_at, looked.new_bars)
    doing = health.due(
        looked.model_id, looked.performance, looked.finding, looked.drift, services.settings.watch
    )
    for due in (*doing, *staleness.due([serving], policy, services.clock())):
        key = f"watch/{version.version}/{due.reason}/{facts}"
        yield intake.submit(services, _request(job, due, key))


def _request(job: TrainingJob, due: Due, key: str) -> TriggerRequest:
    """To train it again as it was, on the newest bars."""
    as_before = job.model_dump(include=set(RetrainRequest.model_fields))
    training = as_before | {"trigger_reason": due.reason, "requested_by": WATCH.name}
    return TriggerRequest(
        training=RetrainRequest.model_validate(training),
        actor=WATCH,
        source=WATCH.name,
        key=key,
        observed=due.observed,
    )
