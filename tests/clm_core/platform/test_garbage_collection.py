"""Garbage collection of our own processes."""

import subprocess
import sys

import pytest

from clm_core.platform.garbage_collection import YOUNG_OBJECTS_OF_A_COMMAND

AT_EXIT = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 0))
sys.argv = ["clm", "--help"]
from clm_core.cli.app import main
main()
"""
AFTER_IMPORT = """
import gc
before = gc.get_threshold()
import clm_core.serving
print(gc.get_threshold() == before)
"""
GARBAGE = """
import gc
from pathlib import Path
from clm_core.platform import garbage_collection

def anonymous():
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in each]
    return int(line.split()[1])

garbage_collection.collect_garbage_rarely()
blocks = [bytearray(2_000) for _ in range(20_000)]
kept = blocks[::100]
cycle = [blocks]
cycle.append(cycle)
del blocks, cycle
before = anonymous()
garbage_collection.return_memory_after_start(0.0)
import time
deadline = time.monotonic() + 60
while anonymous() > before - 20_000 and time.monotonic() < deadline:
    time.sleep(0.05)
print(before - anonymous() > 20_000)
"""


def test_a_command_collects_garbage_rarely_and_none_at_its_end() -> None:
    shown = subprocess.run([sys.executable, "-I", "-c", AT_EXIT], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == f"{YOUNG_OBJECTS_OF_A_COMMAND} True"


def test_an_import_of_the_library_leaves_the_collector_of_a_trader_alone() -> None:
    shown = subprocess.run(
        [sys.executable, "-I", "-c", AFTER_IMPORT], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc returns memory")
def test_memory_freed_between_blocks_in_use_is_returned_after_a_start() -> None:
    shown = subprocess.run([sys.executable, "-I", "-c", GARBAGE], capture_output=True, text=True, check=True)
    assert shown.stdout == "True\n"
