"""Decisions on versions under shadow testing, after each shadow pass: promote, retire, continue or expire.

A shadow belongs to a recipe. The newest version of the recipe holds the place, with the start, the level and
the record of the versions before, which are retired as superseded. The decision is recorded, then carried out
through the promotion protocol; after a pass killed in between, the next pass decides the same.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np

from clm_core.decisions import shadow_decision
from clm_core.decisions.lifecycle_rules import LifecycleRules, Switch
from clm_core.decisions.shadow_decision import ShadowFacts
from clm_core.domain.actors import SYSTEM
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import CLMError, ConflictError, PromotionRefused
from clm_core.domain.evaluations import Decision
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.shadow_decisions import (
    PlaceOutcome,
    RecordedDecision,
    ShadowAction,
    ShadowDecision,
    ShadowPlace,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.evidence.paired import MIN_DIFFERENCES
from clm_core.evidence.single_look import single_look_tests
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.lifecycle import allocation, approvals, shadow
from clm_core.lifecycle.shadow import ShadowReport
from clm_core.market.timeframes import Timeframe
from clm_core.operations.passes import attempt, report_parts
from clm_core.platform import tracing
from clm_core.platform.tracing import traced
from clm_core.retraining import promoting
from clm_core.retraining.judging import judge_anew
from clm_core.retraining.shadow_evidence import beside_lead
from clm_core.retraining.shadow_tracks import (
    ShadowRun,
    Stint,
    days_in_shadow,
    markets_since,
    moment,
    recipe_key,
    run_of,
    stints_in_production,
    stints_in_shadow,
)
from clm_core.retraining.succession import is_refresh
from clm_core.services import Services

DAY = timedelta(days=1)
LOW_SCORE = 50.0
"""Promotion score below which a promotion is told of beforehand."""


@dataclass(frozen=True)
class _Subject:
    """A version to decide on."""

    version: ModelVersion
    champion: ModelVersion | None
    is_refresh: bool
    place: ShadowPlace | None
    """None for a refresh of the champion's recipe."""
    rules: LifecycleRules
    now: datetime

    @property
    def started_at(self) -> datetime:
        return self.version.created_at if self.place is None else self.place.started_at

    @property
    def days(self) -> float:
        return (self.now - self.started_at) / DAY

    @property
    def label_of_champion(self) -> str | None:
        return None if self.champion is None else self.champion.version


@traced("shadow")
def run(
    services: Services,
    model_id: str | None = None,
    timeframe: Timeframe | None = None,
    anew: bool = False,
    whole: bool = False,
) -> ShadowReport:
    """Record the missing positions, then decide on every version under shadow testing and act.

    Args:
        anew: measure also versions whose newest decision, of the same UTC day, was to continue.
        whole: compute all positions since the registration anew and compare with the record.

    Raises:
        NotFound: the model does not exist.
    """
    report = shadow.run(services, model_id, timeframe, whole)
    decisions, by_timeframe = decide_all(services, model_id, timeframe, anew)
    # what kept a position from being recorded is a problem already
    problems = {
        each: [problem for problem in by_timeframe.get(each, ()) if problem not in report.problems]
        for each in (Timeframe if timeframe is None else (timeframe,))
    }
    if model_id is None:
        parts = {f"shadow-decisions-{part}": its_problems for part, its_problems in problems.items()}
        report_parts(services, "clm shadow", parts)
    unasked = approvals.keep_forms(services) if model_id is None else []
    allocations, unmoved = allocation.update_all(services, model_id, timeframe)
    if model_id is None:
        parts = {f"allocation-{part}": unmoved.get(part, []) for part in problems}
        report_parts(services, "clm shadow", parts | {"approvals": unasked})
    decided = tuple(
        each.model_copy(update={"decision": decisions.get((each.model_id, each.version))})
        for each in report.versions
    )
    failed = [problem for each in (*problems.values(), unasked, *unmoved.values()) for problem in each]
    changes = {
        "versions": decided,
        "problems": (*report.problems, *failed),
        "allocations": tuple(allocations),
    }
    return report.model_copy(update=changes)


def decide_all(
    services: Services, model_id: str | None = None, timeframe: Timeframe | None = None, anew: bool = False
) -> tuple[dict[tuple[str, str], ShadowDecision], dict[str, list[str]]]:
    """Decide on every version under shadow testing by the recorded positions, and act.

    Returns:
        Decisions by model id and label, and problems by timeframe.

    Raises:
        NotFound: the model does not exist.
    """
    models = shadow.shadowed_versions(services, model_id, timeframe)
    _close_ended_places(services)
    decisions: dict[tuple[str, str], ShadowDecision] = {}
    problems = defaultdict[str, list[str]](list)
    for name, versions in sorted(models.items()):
        for version in versions:
            label = f"{name}@{version.version}"
            decision, failed = attempt(label, partial(_decide_and_act, services, version, versions, anew))
            problems[version.timeframe] += failed
            if decision is not None:
                decisions[name, version.version] = decision
    return decisions, problems


def decide_on_refresh(services: Services, version: ModelVersion) -> ShadowDecision | None:
    """Decide at once on a new version of the champion's recipe, and act; None for any other version.

    The walk-forward has tested refreshing already: a shadow would add nothing. After a process killed in
    between, the next pass decides the same.
    """
    job_id = version.training_job_id
    with tracing.trace_span(
        "decision on a refresh", job_id, job_id=job_id, model_id=version.model_id, version=version.version
    ):
        return _decided_on_refresh(services, version)


def _decided_on_refresh(services: Services, version: ModelVersion) -> ShadowDecision | None:
    version = services.ledger.version(version.model_id, version.version)
    label = services.ledger.promotions.champion(version.model_id)
    if version.status is not ModelStatus.CANDIDATE or label is None:
        return None
    champion = services.ledger.version(version.model_id, label)
    if not _is_refresh(services, version, champion):
        return None
    return _decide_and_act(services, version, _followed(services, version.model_id), anew=False)


def _close_ended_places(services: Services) -> None:
    """Close the places whose versions left the shadow: by a person, or by a pass killed before closing."""
    store = services.ledger.shadow_decisions
    for place in store.open_places():
        label = services.ledger.promotions.champion(place.model_id)
        serving = None if label is None else services.ledger.version(place.model_id, label)
        if serving is not None and recipe_key(serving) == place.recipe:
            store.close_place(place, PlaceOutcome.PROMOTED, services.clock())
        elif not any(recipe_key(each) == place.recipe for each in _followed(services, place.model_id)):
            newest = store.newest_of(place)
            expired = newest is not None and newest.decision.action is ShadowAction.EXPIRE
            outcome = PlaceOutcome.EXPIRED if expired else PlaceOutcome.RETIRED
            store.close_place(place, outcome, services.clock())


def _followed(services: Services, model_id: str) -> list[ModelVersion]:
    versions = services.ledger.versions
    return [each for status in shadow.SHADOWED for each in versions(model_id=model_id, status=status)]


def _decide_and_act(
    services: Services, version: ModelVersion, versions: Sequence[ModelVersion], anew: bool
) -> ShadowDecision:
    # an earlier step of the pass may have changed the champion or the version
    version = services.ledger.version(version.model_id, version.version)
    if version.status not in shadow.SHADOWED:
        newest = services.ledger.shadow_decisions.newest(version.model_id, version.version)
        return newest.decision if newest else _ended(version)
    subject = _subject(services, version)
    successor = _successor(subject, versions)
    if successor is not None:
        return _retire_superseded(services, subject, successor)
    unanswered = _unanswered(services, subject)
    if unanswered is not None:
        return _act(services, subject, unanswered)
    newest = services.ledger.shadow_decisions.newest(version.model_id, version.version)
    if newest is not None and _is_left(newest, subject):
        return _act(services, subject, newest.decision)
    if newest is not None and not anew and _stands(services, newest, subject):
        return newest.decision
    decision = shadow_decision.decide(_facts(services, subject), subject.rules)
    return _act(services, subject, decision)


def _unanswered(services: Services, subject: _Subject) -> ShadowDecision | None:
    """Decision on a version whose promotion nobody approved or refused in time; None for any other."""
    waiting = approvals.waiting_for(services, subject.version.model_id, subject.version.version)
    if waiting is None or _switch(subject) != "approval" or subject.now < waiting.until:
        return None
    days = subject.rules.approval_days
    reason = f"nobody approved the promotion within {days:g} days (approval_days): refused"
    return ShadowDecision(
        action=ShadowAction.EXPIRE, reasons=(reason, *waiting.reasons), progress=waiting.progress
    )


def _is_left(newest: RecordedDecision, subject: _Subject) -> bool:
    """True for an end of the shadow that a killed pass recorded, and did not carry out.

    A refusal by silence in particular would else ask again: the recorded end is the end of the wait.
    """
    ends = (ShadowAction.RETIRE, ShadowAction.EXPIRE)
    return newest.decision.action in ends and newest.champion == subject.label_of_champion


def _ended(version: ModelVersion) -> ShadowDecision:
    reason = f"the version is {version.status} since the pass began"
    return ShadowDecision(action=ShadowAction.CONTINUE, reasons=(reason,), progress="no shadow any more")


def _subject(services: Services, version: ModelVersion) -> _Subject:
    """The version with champion, place and rules; a new recipe takes a place, and a level once it is compared
    with a champion."""
    label = services.ledger.promotions.champion(version.model_id)
    champion = None if label is None else services.ledger.version(version.model_id, label)
    rules = services.lifecycle(version.model_id, version.symbol)
    now = services.clock()
    if champion is not None and _is_refresh(services, version, champion):
        return _Subject(version, champion, True, None, rules, now)
    store = services.ledger.shadow_decisions
    place = store.take_place(version.model_id, recipe_key(version), version.created_at)
    if champion is not None:
        place = store.take_level(place, now.year, rules.yearly_error)
    return _Subject(version, champion, False, place, rules, now)


def _is_refresh(services: Services, version: ModelVersion, champion: ModelVersion) -> bool:
    result, _ = services.ledger.evaluation(version.model_id, version.version)
    plan = services.settings.walk_forward if result.terms is None else result.terms.walk_forward
    return is_refresh(services, version, champion, plan)


def _successor(subject: _Subject, versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """Newer version that took over: of the same recipe in shadow, or the champion itself."""
    key = recipe_key(subject.version)
    same = [each for each in versions if recipe_key(each) == key]
    if subject.is_refresh and subject.champion is not None:
        same.append(subject.champion)
    newest = max(same, key=lambda each: each.created_at)
    return newest if newest.created_at > subject.version.created_at else None


def _retire_superseded(services: Services, subject: _Subject, by: ModelVersion) -> ShadowDecision:
    version = subject.version
    decision = ShadowDecision(
        action=ShadowAction.RETIRE,
        reasons=(f"superseded by {by.version} of the same recipe, which takes over place and record",),
        progress=f"{subject.days:.0f} days",
    )
    _record(services, subject, decision)
    now = services.clock()
    services.promotions.retire(version.model_id, version.version, SYSTEM, decision.reasons[0], now)
    return decision


def _stands(services: Services, newest: RecordedDecision, subject: _Subject) -> bool:
    """True for a decision of the same UTC day about the same champion that a repetition would not change.

    The lead grows by whole days; a refused promotion is tried again the next day.
    """
    if newest.at.date() != subject.now.date() or newest.champion != subject.label_of_champion:
        return False
    waits_for = newest.decision.waits_for
    if newest.decision.action is ShadowAction.CONTINUE or waits_for.startswith(REFUSED):
        return True
    return waits_for != "" and waits_for == _obstacle(services, subject)


def _facts(services: Services, subject: _Subject) -> ShadowFacts:
    version = subject.version
    champion = subject.champion
    verdict, objections = _verdict(services, version)
    waits_for = _obstacle(services, subject)
    facts = ShadowFacts(
        days=subject.days,
        bars=0,
        trades=0,
        verdict=verdict,
        objections=objections,
        champion=subject.label_of_champion,
        is_refresh=subject.is_refresh,
        level=None if subject.place is None or champion is None else subject.place.level,
        waits_for=waits_for,
        needs_approval=_switch(subject) == "approval",
    )
    since = subject.started_at
    stints = stints_in_shadow(services, version, since)
    recorded = run_of(services, stints, markets_since(services, version, since))
    if recorded is not None:
        facts = replace(
            facts,
            bars=int(np.count_nonzero(recorded.earned)),
            trades=len(recorded.exits),
            looks=tuple(_looks(subject, recorded)),
        )
    if subject.is_refresh:
        return facts
    facts = replace(facts, walk_forward=_walk_forward(services, stints))
    if champion is None:
        return facts
    days = days_in_shadow(services, stints, stints_in_production(services, champion), since)
    tests = single_look_tests(days.ours, days.theirs, days.days_per_year, MIN_DIFFERENCES)
    return replace(facts, lead=days.record, single_look=tests)


def _verdict(services: Services, version: ModelVersion) -> tuple[Decision | None, tuple[str, ...]]:
    """Verdict in force, the lead over the champion aside: a promotion judges a CANDIDATE anew by itself."""
    if version.status is ModelStatus.CANDIDATE:
        return Decision.PASS, ()
    _, recorded = services.ledger.evaluation(version.model_id, version.version)
    if beside_lead(recorded)[0] is Decision.PASS:
        return Decision.PASS, ()
    try:
        return beside_lead(judge_anew(services, version))
    except CLMError as error:
        return None, (str(error),)


def _looks(subject: _Subject, recorded: ShadowRun) -> Iterator[TrackRecord]:
    """Record up to each look that was reached; where nothing serves, up to the first with a Sharpe ratio."""
    rules = subject.rules
    step = timedelta(days=rules.confirm_days)
    ends = [subject.started_at + number * step for number in range(1, rules.looks + 1)]
    if subject.champion is None and len(recorded.exits) >= rules.confirm_trades:
        ends = [min(ends[0], moment(int(recorded.exits[rules.confirm_trades - 1]))), *ends]
    for end in ends:
        if end > subject.now:
            return
        record = track_record(recorded.returns_until(end))
        if subject.champion is not None:
            yield record
        elif record.measured:
            yield record
            return


def _walk_forward(services: Services, stints: Sequence[Stint]) -> TrackRecord | None:
    """Record behind the verdict on the first version of the shadow."""
    trials = services.ledger.trials.of_job(stints[0].version.training_job_id)
    if not trials:
        return None
    judged = trials[-1]
    return TrackRecord(judged.sharpe, judged.skewness, judged.kurtosis, judged.bars, judged.effective_bars)


REFUSED = "the promotion was refused"


def _switch(subject: _Subject) -> Switch:
    return subject.rules.refresh if subject.is_refresh else subject.rules.promotion


def _obstacle(services: Services, subject: _Subject) -> str:
    """Reason against a promotion by the pass now; empty: none."""
    version = subject.version
    rules = subject.rules
    switch = _switch(subject)
    name = "refresh" if subject.is_refresh else "promotion"
    command = f"clm promote {version.model_id}@{version.version}"
    if switch == "off":
        return f"{name} = off in the policy: a person promotes with `{command}`"
    if switch == "approval":
        return (
            f"{name} = approval in the policy: approve on the page of the run in Prefect or with "
            f"`{command}`, refuse there or with `clm retire`"
        )
    decided = services.ledger.promotions.newest_by_person(version.model_id)
    if decided is None:
        return ""
    at, actor = decided
    until = at + timedelta(days=rules.human_hold_days)
    if until <= subject.now:
        return ""
    return (
        f"{actor} decided about production on {at:%Y-%m-%d}: the pass promotes nothing before "
        f"{until:%Y-%m-%d %H:%M} UTC (human_hold_days = {rules.human_hold_days:g})"
    )


def _record(services: Services, subject: _Subject, decision: ShadowDecision) -> RecordedDecision:
    version = subject.version
    return services.ledger.shadow_decisions.record(
        subject.place,
        version.model_id,
        version.version,
        subject.label_of_champion,
        decision,
        services.clock(),
    )


def _act(services: Services, subject: _Subject, decision: ShadowDecision) -> ShadowDecision:
    """Record the decision and carry it out."""
    _tell_of_low_score(services, subject, decision)
    _record(services, subject, decision)
    crash_at(Fault.SHADOW_DECIDED, services.settings.fault)
    match decision.action:
        case ShadowAction.PROMOTE if not decision.waits_for:
            return _promote(services, subject, decision)
        case ShadowAction.RETIRE:
            _retire(services, subject, decision, PlaceOutcome.RETIRED)
        case ShadowAction.EXPIRE:
            _retire(services, subject, decision, PlaceOutcome.EXPIRED)
    return decision


def _tell_of_low_score(services: Services, subject: _Subject, decision: ShadowDecision) -> None:
    """Alert, once a version, about a promotion earned with a score that people rarely see promoted."""
    version = subject.version
    label = f"{version.model_id}@{version.version}"
    if decision.action is not ShadowAction.PROMOTE:
        return
    newest = services.ledger.shadow_decisions.newest(version.model_id, version.version)
    if newest is not None and newest.decision.action is ShadowAction.PROMOTE:
        return
    _, verdict = services.ledger.evaluation(version.model_id, version.version)
    if not verdict.score < LOW_SCORE:
        return
    waits = f", and waits: {decision.waits_for}" if decision.waits_for else ""
    message = (
        f"{label} has earned its promotion with a promotion score of {verdict.score:.2f} of 100{waits}. The "
        f"score ranks versions and decides nothing; `clm show {label}` has the evidence."
    )
    services.alerts.record(
        Alert(kind=AlertKind.LOW_SCORE, subject=label, message=message, at=services.clock())
    )


def _promote(services: Services, subject: _Subject, decision: ShadowDecision) -> ShadowDecision:
    """Promote through the protocol; a refusal is recorded as the obstacle, until the shadow expires."""
    version = subject.version
    reason = f"shadow: {'; '.join(decision.reasons)}"
    champion = subject.label_of_champion
    # the answer to a pass killed after the change is the change, not a conflict with itself
    key = f"shadow decision/{version.model_id}/{version.version}"
    try:
        promoting.promote(
            services, version.model_id, version.version, SYSTEM, reason, expected_champion=champion, key=key
        )
    except ConflictError as error:
        # the next pass tries again
        waiting = decision.model_copy(update={"waits_for": str(error)})
        _record(services, subject, waiting)
        return waiting
    except PromotionRefused as error:
        refused = decision.model_copy(update={"waits_for": f"{REFUSED}: {error}"})
        if subject.days >= subject.rules.max_days:
            reasons = (f"not promoted after {subject.days:.0f} days: {error}",)
            expired = decision.model_copy(update={"action": ShadowAction.EXPIRE, "reasons": reasons})
            _record(services, subject, expired)
            _retire(services, subject, expired, PlaceOutcome.EXPIRED)
            return expired
        _record(services, subject, refused)
        return refused
    crash_at(Fault.SHADOW_PROMOTED, services.settings.fault)
    if subject.place is not None:
        services.ledger.shadow_decisions.close_place(subject.place, PlaceOutcome.PROMOTED, services.clock())
    return decision


def _retire(services: Services, subject: _Subject, decision: ShadowDecision, outcome: PlaceOutcome) -> None:
    version = subject.version
    reason = f"shadow, {decision.action}: {'; '.join(decision.reasons)}"
    services.promotions.retire(version.model_id, version.version, SYSTEM, reason, services.clock())
    crash_at(Fault.SHADOW_RETIRED, services.settings.fault)
    if subject.place is not None:
        services.ledger.shadow_decisions.close_place(subject.place, outcome, services.clock())
