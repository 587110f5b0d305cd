"""The pattern of a scheduled pass, shown on a pass over three subjects."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import Result
from trace_receiver import collecting
from typer import Typer
from typer.testing import CliRunner

from clm_core.cli.output import AsJson, print_report
from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import NotFound, PassIncomplete
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.operations.passes import (
    PassReport,
    Row,
    attempt,
    formatted,
    report_parts,
    report_problems,
    run_each,
)
from clm_core.platform import tracing
from clm_core.services import Services

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


class CountReport(PassReport):
    """Report of a pass that counts letters."""

    lengths: tuple[int, ...]

    @property
    def headline(self) -> str:
        return f"Words counted: {len(self.lengths)}."

    def rows(self) -> list[Row]:
        return [{"letters": str(length)} for length in self.lengths]


def raises(error: Exception) -> Callable[[], int]:
    def step() -> int:
        raise error

    return step


def count(*problems: str) -> CountReport:
    return CountReport(at=NOW, problems=problems, lengths=(3, 5))


def test_an_error_of_a_subject_becomes_a_problem_and_leaves_the_other_subjects_to_run() -> None:
    results, problems = run_each(
        [
            ("one", lambda: 3),
            ("two", raises(NotFound("There is no model."))),
            ("three", raises(ZeroDivisionError("by\0zero"))),
            ("four", lambda: 4),
        ]
    )
    assert results == [3, 4]
    assert problems[0] == "two: There is no model."
    assert problems[1].startswith("three: ZeroDivisionError: by")
    assert "\0" not in problems[1], "PostgreSQL stores no NUL"


def test_the_step_of_each_subject_is_a_span_and_a_problem_an_error() -> None:
    with collecting() as collector, tracing.exported(TracingSettings(endpoint=collector.url)):
        run_each([("one", lambda: 3), ("two", raises(NotFound("There is no model.")))])
    is_error = {each.attributes["clm.subject"]: each.is_error for each in collector.spans}
    assert is_error == {"one": False, "two": True}


def test_an_attempt_has_a_result_or_a_problem() -> None:
    assert attempt("one", lambda: 3) == (3, [])
    assert attempt("two", raises(ValueError("no"))) == (None, ["two: ValueError: no"])


def test_problems_open_one_alert_that_ends_with_the_first_pass_without_problems(services: Services) -> None:
    clm = replace(services, clock=lambda: NOW)

    def is_alerted() -> bool:
        return "count" in [alert.subject for alert in clm.alerts.lasting(AlertKind.MAINTENANCE_FAILING)]

    for _ in range(2):
        report_problems(clm, "count", "clm count", ["one: no"])
    assert is_alerted()
    [alert] = [each for each in clm.alerts.newest(500) if each.subject == "count"]
    assert alert.message == "one: no\nSee `clm count`; every pass tries again."
    report_problems(clm, "count", "clm count", [])
    assert not is_alerted()


def test_parts_of_a_pass_open_and_end_alerts_of_their_own(services: Services) -> None:
    clm = replace(services, clock=lambda: NOW)

    def alerted() -> set[str]:
        lasting = clm.alerts.lasting(AlertKind.MAINTENANCE_FAILING)
        return {each.subject for each in lasting if each.subject.startswith("part-")}

    report_parts(clm, "clm count", {"part-1": ["one: no"], "part-2": ["two: no"], "part-3": []})
    assert alerted() == {"part-1", "part-2"}
    report_parts(clm, "clm count", {"part-1": [], "part-2": ["two: no"], "part-3": []})
    assert alerted() == {"part-2"}
    report_parts(clm, "clm count", {"part-1": [], "part-2": [], "part-3": []})
    assert alerted() == set()
    recovered = [each for each in clm.alerts.newest(500) if each.subject.startswith("part-")]
    assert [each.ended_at for each in recovered] == [NOW, NOW]


def test_a_report_with_problems_fails_the_run_of_the_flow() -> None:
    assert count().complete() == count()
    with pytest.raises(PassIncomplete, match="one: no\ntwo: no"):
        count("one: no", "two: no").complete()


def test_the_page_has_a_row_for_each_subject_and_the_problems_below() -> None:
    assert count("one: no").page() == "| letters |\n| --- |\n| 3 |\n| 5 |\n\n- one: no"
    assert CountReport(at=NOW, problems=(), lengths=()).page() == ""


@pytest.mark.parametrize(("problems", "exit_code"), [((), 0), (("one: no",), 1)], ids=["complete", "failed"])
def test_a_command_prints_json_or_a_table_and_exits_with_1_on_problems(
    problems: tuple[str, ...], exit_code: int
) -> None:
    app = Typer()

    @app.command()
    def command(as_json: AsJson = False) -> None:
        print_report(count(*problems), as_json)

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    as_json = run("--json")
    assert CountReport.model_validate_json(as_json.stdout) == count(*problems)
    printed = run()
    assert [line.strip() for line in printed.stdout.splitlines()][-1] == "Words counted: 2."
    assert "letters" in printed.stdout
    assert (as_json.exit_code, printed.exit_code) == (exit_code, exit_code)


def test_a_missing_number_is_a_dash() -> None:
    assert (formatted(0.256, ".1%"), formatted(None, ".1%")) == ("25.6%", "-")
