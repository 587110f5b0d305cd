import importlib
import sys
from pathlib import Path

import pytest

from clm_core.platform.compiled_code import load_compiled

SOURCE = """
from numba import njit

@njit(cache=True)
def twice(value):
    return 2 * value

@njit
def uncached(value):
    return value
"""


def test_code_compiled_by_an_earlier_process_is_loaded_and_nothing_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compiled_once.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    first = importlib.import_module("compiled_once")
    assert load_compiled("compiled_once") == 0
    first.twice(1)
    # as another process would
    monkeypatch.delitem(sys.modules, "compiled_once")
    again = importlib.import_module("compiled_once")
    assert load_compiled("compiled_once") == 1
    assert list(again.twice.overloads) == list(first.twice.overloads)
