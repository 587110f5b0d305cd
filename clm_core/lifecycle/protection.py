"""Protection of the production versions: a disappointing version is taken out of production.

The watch measures each production version on the bars closed since the promotion. `protect_version` decides
by `decisions.protection` and acts by the promotion protocol. The target of a rollback is read and tested at
every pass, before any need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.backtest.metrics import sharpe_ratio, summarise
from clm_core.backtest.results import Backtest, ExitReason, Metrics
from clm_core.decisions.health import Alarm
from clm_core.decisions.protection import (
    ProtectionAction,
    ProtectionDecision,
    ProtectionFacts,
    ProtectionTrigger,
    RecipeFacts,
    protect,
    recipe_has_fired,
    years_to_hard_stop,
)
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.domain.actors import PROTECTION
from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import CLMError, ConflictError
from clm_core.domain.measures import MIN_BARS, finite_or_none
from clm_core.domain.promotions import (
    Promotion,
    PromotionKind,
    Succession,
    is_automatic_refresh,
    rollback_target,
    succession,
)
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.tail_risk import TailTest
from clm_core.market.bars import Bars
from clm_core.models import golden
from clm_core.models.bundle import load_bundle
from clm_core.services import Services


@dataclass(frozen=True, eq=False)
class RecipeInProduction:
    """The recipe of a production version, traded from flat on the bars closed since its first version came
    into production, after costs."""

    bars: Bars
    """Of a pool, the common axis; at least one."""
    result: Backtest
    alarm: Alarm
    """Test of the daily returns."""

    @cached_property
    def metrics(self) -> Metrics:
        return summarise(self.result, self.bars.periods_per_year)


@dataclass(frozen=True, eq=False)
class ServingRecord:
    """A production version traded from flat on the bars closed since the promotion, after costs."""

    bars: Bars
    """Of a pool, the common axis; may be empty."""
    result: Backtest | None
    """None without a bar."""
    alarm: Alarm
    """Test of the daily returns since the promotion."""
    tail: TailTest | None
    """Test of the worst bars since the promotion; None without a reference."""
    recipe: RecipeInProduction | None = None
    """The recipe over successive versions; None unless the version is a refresh with a bar."""

    @cached_property
    def metrics(self) -> Metrics | None:
        """None without a bar."""
        return None if self.result is None else summarise(self.result, self.bars.periods_per_year)


class ProtectedVersion(BaseModel):
    """Protection of a production version in one pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: AwareDatetime
    """Time of the promotion."""
    bars: int
    """Bars closed since the promotion."""
    trades: int
    """Trades closed since the promotion."""
    total_return: float | None
    """Since the promotion, after costs, a fraction; None without a bar."""
    drawdown: float | None
    """Fall of equity below its peak since the promotion, 0..1; None without a bar."""
    hard_stop: float
    """Drawdown of the hard stop, 0..1."""
    hard_stop_off_until: AwareDatetime | None = None
    """End of the time without a hard stop, by a person; None: the hard stop is on."""
    years_to_hard_stop: float | None = None
    """Mean years to the hard stop for a true Sharpe ratio of 1, at the volatility since the promotion; None
    with too few bars."""
    tail_statistic: float | None = None
    tail_threshold: float | None = None
    recipe_since: AwareDatetime | None = None
    """Time of the first promotion of the recipe, replaced by refreshes alone since; None unless the version
    is a refresh."""
    recipe_versions: int = 1
    """Number of the versions since then."""
    recipe_return: float | None = None
    """Since then, after costs, a fraction; None without a bar."""
    recipe_drawdown: float | None = None
    """Fall of equity below its peak since then, 0..1; None without a bar."""
    target: str | None = None
    """Target of a rollback."""
    target_problem: str | None = None
    """Reason why the target cannot serve."""
    action: ProtectionAction
    trigger: ProtectionTrigger | None = None
    reasons: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The action for a table."""
        kept = self.action is ProtectionAction.KEEP and self.trigger is not None
        return "waits" if kept else self.action.replace("_", " ")

    @property
    def sentence(self) -> str:
        """Figures since the promotion, and the action with its reasons."""
        if self.drawdown is None or self.total_return is None:
            figures = "no bar has closed since the promotion"
        else:
            figures = (
                f"since the promotion {100 * self.total_return:+.1f} %, drawdown {100 * self.drawdown:.1f} % "
                f"of {100 * self.hard_stop:g} % at the hard stop"
            )
        if self.years_to_hard_stop is not None:
            figures += f", which a true Sharpe ratio of 1 reaches every {self.years_to_hard_stop:.1f} years"
        if self.recipe_since is not None and self.recipe_drawdown is not None:
            figures += (
                f"; its recipe in {self.recipe_versions} versions since {self.recipe_since:%Y-%m-%d} "
                f"{100 * (self.recipe_return or 0.0):+.1f} %, drawdown {100 * self.recipe_drawdown:.1f} %"
            )
        if self.hard_stop_off_until is not None:
            figures += f"; the hard stop is off until {self.hard_stop_off_until:%Y-%m-%d %H:%M} UTC"
        reasons = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{figures}; protection: {self.word}{reasons}"


def promoted_at(history: Sequence[Promotion], version: ModelVersion) -> datetime:
    """Time of the change that put a production version into production.

    Args:
        history: committed changes of the model, oldest first.
    """
    times = (change.at for change in reversed(history) if change.to_version == version.version)
    return next(times, version.created_at)


def refreshed_since(
    services: Services, version: ModelVersion, history: Sequence[Promotion]
) -> Succession | None:
    """Versions of the recipe that led to a production version by refreshes; None without a refresh.

    Args:
        history: committed changes of the model, oldest first.
    """
    if not history or not is_automatic_refresh(history[-1]):
        return None
    return succession(history, services.ledger.labels_of_recipe(version))


def protect_version(
    services: Services,
    version: ModelVersion,
    record: ServingRecord,
    history: Sequence[Promotion],
    refreshed: Succession | None = None,
) -> ProtectedVersion:
    """Decide about a production version, and act on the decision.

    Args:
        history: committed changes of the model, oldest first.
        refreshed: versions of the recipe before, each replaced by a refresh, if any.

    Raises:
        CLMError: the change that was decided could not be made; the next pass tries again.
    """
    rules = services.policies.protection(version.model_id, version.symbol)
    now = services.clock()
    target = rollback_target(history)
    problem = None if target is None else target_problem(services, version.model_id, target)
    until = services.ledger.exemptions.until(version, () if refreshed is None else refreshed.versions)
    is_off = until is not None and until > now
    facts = ProtectionFacts(
        drawdown=_drawdown(record),
        trades=_trades(record),
        sharpe_of_first=_sharpe_of_first(record, rules.first_trades),
        alarm=record.alarm,
        tail=record.tail,
        person_decided_days=_days_since_person(services, version.model_id, now),
        hard_stop_off=is_off,
        rollbacks=rollbacks_in_a_row(history),
        target=target,
        age_days=(now - version.created_at) / timedelta(days=1),
        target_problem=problem,
        recipe=_recipe_facts(services, version, record, refreshed, rules),
    )
    decision = protect(facts, rules)
    _act(services, version, decision, now)
    protected = _protected_version(
        version, history, record, facts, decision, rules, until if is_off else None
    )
    if refreshed is None:
        return protected
    changes: dict[str, object] = {
        "recipe_since": refreshed.since,
        "recipe_versions": len(refreshed.versions),
    }
    if record.recipe is not None:
        metrics = record.recipe.metrics
        changes["recipe_return"] = finite_or_none(metrics.total_return)
        changes["recipe_drawdown"] = finite_or_none(abs(metrics.max_drawdown))
    return protected.model_copy(update=changes)


def _recipe_facts(
    services: Services,
    version: ModelVersion,
    record: ServingRecord,
    refreshed: Succession | None,
    rules: ProtectionRules,
) -> RecipeFacts | None:
    recipe = record.recipe
    if refreshed is None or recipe is None:
        return None
    facts = RecipeFacts(
        versions=len(refreshed.versions),
        drawdown=abs(recipe.metrics.max_drawdown),
        alarm=recipe.alarm,
        target=refreshed.before,
    )
    if refreshed.before is None or not recipe_has_fired(facts, rules):
        return facts
    # tested when needed: the bundle of an old version takes longer to read than the rest of a pass
    return replace(facts, target_problem=target_problem(services, version.model_id, refreshed.before))


def rollbacks_in_a_row(history: Sequence[Promotion]) -> int:
    """Newest changes of a model that are rollbacks by the protection.

    Args:
        history: committed changes of the model, oldest first.
    """
    count = 0
    for change in reversed(history):
        if change.by != PROTECTION or change.kind is not PromotionKind.ROLLBACK:
            break
        count += 1
    return count


def target_problem(services: Services, model_id: str, label: str) -> str | None:
    """Reason against a rollback to a version; None for a passed and whole version that answers as trained.

    An alert lasts as long as the problem.
    """
    target = services.ledger.version(model_id, label)
    problem: str | None
    try:
        problem = "; ".join(services.promotions.rollback_refusals(target)) or None
        with services.registry.verified(model_id, target.mlflow_version, target.package_digest) as bundle:
            golden.preflight(load_bundle(bundle, target.bundle_digest), bundle)
    except CLMError as error:
        problem = str(error)
    message = (
        f"{label}, which a rollback of {model_id} would put back, cannot serve: {problem}. Until then the "
        f"protection halts the model instead. `clm restore-version {model_id} {label}` names what is missing."
    )
    lasting = None if problem is None else message
    services.alerts.settle(AlertKind.ROLLBACK_TARGET_UNUSABLE, model_id, lasting, services.clock())
    return problem


def _act(services: Services, version: ModelVersion, decision: ProtectionDecision, now: datetime) -> None:
    model_id = version.model_id
    reason = "; ".join(decision.reasons)
    is_frozen = decision.action is ProtectionAction.FREEZE
    message = (
        f"{version.version} serves on, although the protection would take it out of production: "
        f"{reason}. Decide with `clm rollback {model_id}`, `clm halt {model_id}` or a promotion."
    )
    services.alerts.settle(AlertKind.PROTECTION_FROZEN, model_id, message if is_frozen else None, now)
    if is_frozen or decision.action is ProtectionAction.KEEP:
        return
    change = services.promotions
    try:
        if decision.action is ProtectionAction.ROLL_BACK:
            change.rollback(
                model_id, PROTECTION, reason, now, to=decision.target, expected_champion=version.version
            )
        else:
            change.halt(model_id, PROTECTION, reason, now, expected_champion=version.version)
    except ConflictError:
        # with another version in production by now, the decision about the former one is void
        if services.ledger.promotions.champion(model_id) == version.version:
            raise


def _drawdown(record: ServingRecord) -> float:
    return math.nan if record.metrics is None else abs(record.metrics.max_drawdown)


def _trades(record: ServingRecord) -> int:
    return 0 if record.result is None else record.result.trades.ended


def _sharpe_of_first(record: ServingRecord, trades: int) -> float:
    """Annualised Sharpe ratio up to the close of the first trades; NaN before."""
    if record.result is None:
        return math.nan
    closed = record.result.trades
    exits = np.sort(closed.exit_bar[closed.reason != ExitReason.END_OF_DATA])
    if len(exits) < trades:
        return math.nan
    return sharpe_ratio(record.result.returns[: int(exits[trades - 1]) + 1], record.bars.periods_per_year)


def _days_since_person(services: Services, model_id: str, now: datetime) -> float | None:
    decided = services.ledger.promotions.newest_by_person(model_id)
    return None if decided is None else (now - decided[0]) / timedelta(days=1)


def _protected_version(
    version: ModelVersion,
    history: Sequence[Promotion],
    record: ServingRecord,
    facts: ProtectionFacts,
    decision: ProtectionDecision,
    rules: ProtectionRules,
    off_until: datetime | None,
) -> ProtectedVersion:
    total = volatility = math.nan
    if record.metrics is not None:
        total = record.metrics.total_return
        # the volatility of a few bars says nothing of years
        if len(record.bars) >= MIN_BARS:
            volatility = record.metrics.volatility
    tail = record.tail
    return ProtectedVersion(
        since=promoted_at(history, version),
        bars=len(record.bars),
        trades=facts.trades,
        total_return=finite_or_none(total),
        drawdown=finite_or_none(facts.drawdown),
        hard_stop=rules.max_drawdown,
        hard_stop_off_until=off_until,
        years_to_hard_stop=finite_or_none(years_to_hard_stop(1.0, volatility, rules.max_drawdown)),
        tail_statistic=None if tail is None else finite_or_none(tail.statistic),
        tail_threshold=None if tail is None else finite_or_none(tail.threshold),
        target=facts.target,
        target_problem=facts.target_problem,
        action=decision.action,
        trigger=decision.trigger,
        reasons=decision.reasons,
    )
