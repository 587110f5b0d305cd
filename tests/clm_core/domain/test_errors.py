import inspect
import re

from clm_core.domain import errors
from clm_core.domain.errors import CLMError


def drawn_tree() -> dict[str, int]:
    """Depth by name in the module's docstring."""
    lines = re.findall(r"^((?:│   )*(?:[├└]── )?)([A-Z]\w+) {2,}", inspect.getdoc(errors) or "", re.MULTILINE)
    return {name: len(prefix) // 4 for prefix, name in lines}


def defined_tree() -> dict[str, int]:
    classes = inspect.getmembers(
        errors, lambda member: inspect.isclass(member) and issubclass(member, CLMError)
    )
    return {name: error.__mro__.index(CLMError) for name, error in classes}


def test_the_drawn_tree_of_errors_is_the_defined_tree() -> None:
    assert drawn_tree() == defined_tree()


def test_every_error_has_a_docstring_of_its_own() -> None:
    assert [name for name in defined_tree() if not getattr(errors, name).__doc__] == []
