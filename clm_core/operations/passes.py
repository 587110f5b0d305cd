"""The pattern of a scheduled pass over many subjects: models, markets or parts of an installation.

A pass runs one step per subject. An error in a step becomes a problem in the report and leaves the other
subjects unaffected; an alert reports the problems once and ends with the first pass without problems.

A new pass consists of:

    a module      with a report derived from `PassReport`, and `run(services)`, which calls `run_each` and
                  `report_problems`
    a task        that calls `run(services())`
    a flow        named by `run_name`, that calls the task, `show_pass`, `report.complete()`, `record_success`
    a command     that calls `run` and `print_report`
    a deployment  in `deployments.definitions`, with the schedule
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import CLMError, PassIncomplete
from clm_core.ledger.tables import storable
from clm_core.platform import tracing
from clm_core.services import Services

R = TypeVar("R")
Row = dict[str, str]
"""Formatted cells of one subject, by column head."""


class PassReport(BaseModel):
    """Result of one pass: JSON for scripts; a headline, a table and sentences for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    """End of the pass."""
    problems: tuple[str, ...]
    """A sentence for each subject whose step failed."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """Summary of the pass in a sentence or two."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """Table with a row for each subject."""

    def summary_lines(self) -> list[str]:
        """Sentences below the table."""
        return list(self.problems)

    page_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of `rows` on the page of the run, which is 800 pixels wide; empty for all."""

    def page(self) -> str:
        """Markdown for the page of the run; Prefect's table artifacts cut off long cells."""
        rows = self.rows()
        if self.page_columns:
            rows = [{name: row[name] for name in self.page_columns} for row in rows]
        lines = [" | ".join(row.values()) for row in rows]
        head = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])] if rows else []
        table = [f"| {line} |" for line in (*head, *lines)]
        return "\n".join([*table, "", *(f"- {line}" for line in self.summary_lines())])

    def complete(self) -> Self:
        """The report of a pass without problems.

        Raises:
            PassIncomplete: the step of at least one subject failed.
        """
        if self.problems:
            raise PassIncomplete("\n".join(self.problems))
        return self


def attempt(subject: str, step: Callable[[], R]) -> tuple[R | None, list[str]]:
    """Result of a step, or None and the problem in a sentence."""
    try:
        return step(), []
    except Exception as error:  # noqa: BLE001 - any error of a subject leaves the other subjects to run
        message = str(error) if isinstance(error, CLMError) else f"{type(error).__name__}: {error}"
        return None, [storable(f"{subject}: {message}")]


def run_each(steps: Iterable[tuple[str, Callable[[], R]]]) -> tuple[list[R], list[str]]:
    """Run the step of every subject in turn.

    Args:
        steps: pairs of subject and step.

    Returns:
        Results of the steps that succeeded, and a sentence for each step that failed.
    """
    results = list[R]()
    problems = list[str]()
    for subject, step in steps:
        _, failed = attempt(subject, partial(_append, results, subject, step))
        problems += failed
    return results, problems


def _append(results: list[R], subject: str, step: Callable[[], R]) -> None:
    with tracing.span("subject", subject=subject):
        results.append(step())


def report_problems(services: Services, part: str, command: str, problems: Sequence[str]) -> None:
    """Open an alert for a failing pass, or part of a pass, once; end the alert when no problem is left.

    Args:
        part: subject of the alert.
        command: the `clm` command that shows the problems.
    """
    message = "\n".join([*problems, f"See `{command}`; every pass tries again."]) if problems else None
    services.alerts.settle(AlertKind.MAINTENANCE_FAILING, part, message, services.clock())


def report_parts(services: Services, command: str, problems: Mapping[str, Sequence[str]]) -> None:
    """`report_problems` for several parts of a pass; the parts without problems take one statement."""
    whole = [part for part, sentences in problems.items() if not sentences]
    services.alerts.end_all(AlertKind.MAINTENANCE_FAILING, whole, services.clock())
    for part, sentences in problems.items():
        if sentences:
            report_problems(services, part, command, sentences)


def run_name(title: str) -> Callable[[], str]:
    """Name of a flow run: the pass, the parameters ("all" for a parameter left out), the scheduled time."""

    def name_of_this_run() -> str:
        from prefect.runtime import flow_run

        words = [title, *(str(value or "all") for value in flow_run.parameters.values())]
        return f"{' '.join(words)} {flow_run.scheduled_start_time:%Y-%m-%d %H:%M} UTC"

    return name_of_this_run


def formatted(value: float | None, style: str) -> str:
    """A number in a format such as ".2f"; a dash for None."""
    return "-" if value is None else format(value, style)
