"""Measurements of the benchmark of `clm up`: memory, latency and limits."""

import os
import subprocess
import sys

import pytest

from benchmarks import operations
from benchmarks.table import MIB, within

CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"


def test_the_descendants_of_a_process_are_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        processes = operations.with_descendants({os.getpid()})
        assert {os.getpid(), child.pid} < processes
        assert len(operations.with_descendants({child.pid})) == 2
        # pages shared with other processes of Python count in part
        assert 1 < operations.pss_mib(child.pid) < 100
        child.communicate("\n")
    assert operations.pss_mib(child.pid) == 0


def test_a_latency_is_named_with_median_and_maximum() -> None:
    row = operations.latency("Prefect up", operations.Delivered([0.1] * 99 + [3.0], processor_s=0.004))
    assert row.ours == pytest.approx(0.1)
    assert row.met
    assert "(p50 100 ms, maximum 3000 ms)" in row.name
    assert row.cells()[1:3] == ("100.00 ms", "4.00 ms")


def test_memory_above_the_limit_is_shown_in_mib() -> None:
    row = within("at rest", 3000.0, 1500.0, MIB)
    assert row.cells()[1:] == (
        "3,000.00 MiB",
        "",
        "limit",
        "1,500.00 MiB",
        "",
        "0.5 times less",
        "at least 1",
        "NO",
    )
