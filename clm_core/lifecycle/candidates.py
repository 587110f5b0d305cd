"""Evaluation of the waiting candidates, a bounded number a pass."""

from collections.abc import Callable, Iterator, Sequence, Set
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evaluations import ratio_cell
from clm_core.domain.variants import ProposedVariants
from clm_core.lifecycle.variants import MAX_PROPOSED, measure
from clm_core.operations.passes import PassReport, Row, report_problems, run_each
from clm_core.platform.tracing import traced
from clm_core.search.candidates import evaluate, measured_alike, search_of
from clm_core.services import Services

MAX_EVALUATED = 10
"""Maximum number of proposed candidates evaluated in a pass, the oldest first."""
TIME_LIMIT = timedelta(minutes=30)
"""Time after the start of a pass from which on no candidate is begun."""


class CandidateReport(PassReport):
    """Candidates evaluated by a pass."""

    evaluated: tuple[StrategyCandidate, ...] = ()
    answers: tuple[str, ...] = ()
    """Sentence for each weak version whose variants are measured: the requested retrain, or why none."""
    waiting: int = 0
    """Number of the candidates still waiting."""
    is_busy: bool = False
    """True if another process evaluates the candidates: nothing was done."""

    @property
    def headline(self) -> str:
        if self.is_busy:
            return "Another process evaluates the candidates: nothing was done."
        return f"Candidates evaluated: {len(self.evaluated)}. Still waiting: {self.waiting}."

    def rows(self) -> list[Row]:
        return [
            {"candidate": str(each.id), "variant of": each.base_strategy, "Sharpe ratio": result(each)}
            for each in self.evaluated
        ]

    def summary_lines(self) -> list[str]:
        """Answers for the weak versions, then the problems."""
        return [*(f"{each}." for each in self.answers), *self.problems]


def result(candidate: StrategyCandidate) -> str:
    """Fitness of a candidate with the interval, or the reason for a missing fitness."""
    if candidate.awaits_evaluation:
        return "waits for its evaluation"
    if candidate.fitness_score is None:
        return candidate.failure_cause or "not measurable"
    return ratio_cell(candidate.fitness_score, candidate.fitness_interval)


@traced("candidates")
def run(services: Services, workers: int | None = 1) -> CandidateReport:
    """Measure variants of weak versions, then the oldest proposed candidates. The next pass continues
    after a kill.

    Args:
        workers: number of worker processes; None for one per processor.
    """
    store = services.ledger.candidates
    with store.evaluation() as is_ours:
        if not is_ours:
            return CandidateReport(at=services.clock(), problems=(), is_busy=True)
        stop_at = services.clock() + TIME_LIMIT
        unanswered = services.ledger.variants.unanswered()
        of_versions = [each for proposed in unanswered for each in proposed.candidates]
        posted = [each.id for each in store.waiting(MAX_EVALUATED, without=of_versions)]
        before = {each.id for each in store.known(of_versions).values() if each.awaits_evaluation}
        answers, problems = run_each(
            _measurements(services, _next_measured(unanswered, before), workers, stop_at)
        )
        _, others = run_each(_evaluations(services, posted, workers, stop_at))
    problems += others
    report_problems(services, "candidates", "clm candidates evaluate", problems)
    after = store.known([*before, *posted])
    return CandidateReport(
        at=services.clock(),
        problems=tuple(problems),
        evaluated=tuple(each for each in after.values() if not each.awaits_evaluation),
        answers=tuple(filter(None, answers)),
        waiting=store.count_waiting(),
    )


def _next_measured(unanswered: Sequence[ProposedVariants], waiting: Set[UUID]) -> list[ProposedVariants]:
    """Variants measured before, to be answered, and the oldest of those to be measured.

    Args:
        waiting: ids of the waiting candidates.
    """
    measured = [each for each in unanswered if waiting.isdisjoint(each.candidates)]
    unmeasured = [each for each in unanswered if not waiting.isdisjoint(each.candidates)]
    return [*measured, *unmeasured[:MAX_PROPOSED]]


def _measurements(
    services: Services, proposed: Sequence[ProposedVariants], workers: int | None, stop_at: datetime
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    for each in proposed:
        services.announce(f"Measuring variants of {each.model_id}", 0.0)
        yield f"{each.model_id}@{each.version}", partial(measure, services, each, workers, stop_at)


def _evaluations(
    services: Services, posted: Sequence[UUID], workers: int | None, stop_at: datetime
) -> Iterator[tuple[str, Callable[[], None]]]:
    for group in measured_alike(services.ledger.candidates.known(posted).values()):
        first = group[0]
        services.announce(f"Evaluating candidates of {first.base_strategy}", 0.0)
        opened = partial(search_of, services, first)
        yield f"candidate {first.id}", partial(evaluate, services, opened, group, workers, stop_at)
