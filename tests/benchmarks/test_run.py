"""`make bench`: every part in a process of its own, failures named, and what succeeded written."""

import threading
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.run import Outcome, Part, document, failures, section, table
from benchmarks.table import Timing, faster

MEASURED = """
from benchmarks.table import Timing, faster
def rows():
    yield faster("work of a section", Timing((1.0,), (2.0,)), "peer", Timing((3.0,), (4.0,)), None)
"""
FAILING = "def rows():\n    raise TypeError('rows() takes no such argument')\n"
ENDLESS = "import time\ndef rows():\n    time.sleep(600)\n"


@pytest.fixture
def sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of modules that the processes of the runner import."""
    for name, text in {"measured": MEASURED, "failing": FAILING, "endless": ENDLESS}.items():
        (tmp_path / f"bench_{name}.py").write_text(text, encoding="utf-8")
    root = Path(run.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    return tmp_path


def test_a_section_that_fails_or_never_ends_is_named_and_the_others_are_written(sections: Path) -> None:
    outcomes = [
        run.run(section("bench_measured")),
        run.run(section("bench_failing")),
        run.run(section("bench_endless", limit_s=0.5)),
    ]
    [row] = outcomes[0].rows
    assert row == faster("work of a section", Timing((1.0,), (2.0,)), "peer", Timing((3.0,), (4.0,)), None)
    assert failures(outcomes) == [
        "`bench_failing`: TypeError: rows() takes no such argument",
        "`bench_endless`: stopped after its time limit of 0.5 s",
    ]
    text = document(outcomes)
    assert "| work of a section | 1,000.00 / 1,000.00 ms | 2,000.00 / 2,000.00 ms | peer |" in text
    assert text.endswith("stopped after its time limit of 0.5 s\n")


def test_a_table_that_ends_with_an_error_is_named(sections: Path) -> None:
    outcome = run.run(Part("a table", ("bench_missing",), 60.0))
    assert outcome.failure == "exit code 1: the reason is in the output"
    assert run.run(Part("a table", ("bench_measured",), 60.0)) == Outcome("a table")


def test_parts_are_called_by_name_or_all_in_order() -> None:
    assert [part.name for part in run.parts_of([])] == [*run.SECTIONS, *run.ALONE, *run.SIMULATED]
    assert [part.name for part in run.parts_of([run.TABLES_ONLY])] == list(run.TABLES)
    assert run.parts_of(["gate", "engine"]) == [table("gate"), section("benchmarks.engine")]
    with pytest.raises(SystemExit, match="no section or table speed: choose from engine, "):
        run.parts_of(["speed"])


@pytest.mark.parametrize("name", ["gaps", "nsga2"])
def test_the_exit_code_is_1_after_a_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run", lambda part: Outcome(part.name, failure="no"))
    assert run.main([name]) == 1
    monkeypatch.setattr(run, "run", lambda part: Outcome(part.name))
    assert run.main([name]) == 0


def test_the_whole_run_writes_what_was_measured_and_names_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = faster("work", Timing((1.0,), (1.0,)), "peer", Timing((2.0,), (2.0,)), 2.0)
    seen = list[str]()

    def measured(part: Part) -> Outcome:
        seen.append(run.RESULTS.read_text() if run.RESULTS.exists() else "")
        return Outcome(part.name, (row,)) if part.name == "gaps" else Outcome(part.name, failure="broken")

    monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(run, "run", measured)
    assert run.main([]) == 1
    text = run.RESULTS.read_text()
    assert "| work | 1,000.00 / 1,000.00 ms |" in text
    assert "- `engine`: broken\n" in text
    assert "- `gate`: broken\n" in text
    # the file is there as soon as there are rows, for a run that is interrupted
    assert "| work |" in seen[run.SECTIONS.index("gaps") + 1]


def test_timed_parts_run_alone_and_simulations_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def run_part(part: Part) -> Outcome:
        # a simulation waits for the other one, and a timed part for none
        if not part.is_alone:
            together.wait(10)
        return Outcome(part.name)

    monkeypatch.setattr(run, "run", run_part)
    monkeypatch.setattr(run, "cpu_count", lambda: 2)
    parts = run.parts_of(["allocation", "engine", "protection"])
    assert [each.name for each in run.run_all(parts)] == ["engine", "allocation", "protection"]
