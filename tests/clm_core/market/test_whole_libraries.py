import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from clm_core.market.whole_libraries import BOOSTING, forget_without_sklearn


@pytest.mark.parametrize("library", BOOSTING)
def test_a_library_imported_without_scikit_learn_is_imported_anew_for_code_of_others(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # all modules of the library are back after the test, not only those replaced here
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for installed in (True, False):
        compat = SimpleNamespace(SKLEARN_INSTALLED=installed)
        monkeypatch.setitem(sys.modules, library, SimpleNamespace())
        monkeypatch.setitem(sys.modules, f"{library}.compat", compat)
        forget_without_sklearn()
        assert (library in sys.modules) == (f"{library}.compat" in sys.modules) == installed


@pytest.mark.parametrize("library", BOOSTING)
def test_the_library_says_whether_it_has_scikit_learn(library: str) -> None:
    spec = find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    assert "SKLEARN_INSTALLED = False" in Path(spec.origin).with_name("compat.py").read_text()
