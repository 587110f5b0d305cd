"""Garbage collection of our own processes."""

import subprocess
import sys

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


def test_a_command_collects_garbage_rarely_and_none_at_its_end() -> None:
    shown = subprocess.run([sys.executable, "-I", "-c", AT_EXIT], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == f"{YOUNG_OBJECTS_OF_A_COMMAND} True"


def test_an_import_of_the_library_leaves_the_collector_of_a_trader_alone() -> None:
    shown = subprocess.run(
        [sys.executable, "-I", "-c", AFTER_IMPORT], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "True\n"
