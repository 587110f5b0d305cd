"""Timing and rows of side-by-side measurements."""

import subprocess
import sys
from time import sleep

import pytest

from benchmarks.table import MIB, PROCESSOR, SECONDS, Row, Timing, faster, markdown, overhead, timed, within

OURS = Timing((0.002, 0.001, 0.004), (0.003, 0.002, 0.001))
PEERS = Timing((0.020, 0.040, 0.030), (0.008, 0.009, 0.007))


def test_a_row_shows_minimum_and_median_of_clock_and_processor_on_both_sides() -> None:
    row = faster("work", OURS, "peer 1.0", PEERS, 10.0)
    assert row.cells() == (
        "work",
        "1.00 / 2.00 ms",
        "1.00 / 2.00 ms",
        "peer 1.0",
        "20.00 / 30.00 ms",
        "7.00 / 8.00 ms",
        "15.0 times faster (clock)",
        "at least 10",
        "yes",
    )
    assert "| 1.00 / 2.00 ms |" in markdown([row])


def test_a_ratio_of_processor_time_is_that_of_the_medians_of_the_processor() -> None:
    row = faster("work", OURS, "peer", PEERS, 5.0, by=PROCESSOR)
    assert row.ratio == pytest.approx(4.0)
    assert not row.met
    assert overhead("work", PEERS, "peer", OURS, 400.0, by=PROCESSOR).ratio == pytest.approx(300.0)


def test_a_value_without_runs_stands_in_one_column() -> None:
    row = within("waits", 0.5, 1.0, SECONDS)
    assert row.cells()[1:6] == ("0.50 s", "", "limit", "1.00 s", "")
    assert within("memory", 512.0, 1024.0, MIB).cells()[6] == "2.0 times less"


def test_time_of_the_processor_counts_child_processes_and_no_sleep() -> None:
    work = "sum(range(3_000_000))"
    child = timed(lambda: subprocess.run([sys.executable, "-c", work], check=True), 1, warm_up=False)
    assert child.processor[0] > 0.01
    asleep = timed(lambda: sleep(0.05), 1, warm_up=False)
    assert asleep.clock[0] >= 0.05
    assert asleep.processor[0] < 0.03


def test_a_ratio_of_something_else_than_time_names_no_time() -> None:
    row = Row("reward", OURS, "peer", PEERS, 1.1, 1.0, "times the reward")
    assert row.cells()[6] == "1.1 times the reward"
