"""Continuous Learning Manager: keeps trading models fresh without letting a worse one into production."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clm_core.session.home import CLM as CLM


def __getattr__(name: str) -> Any:
    """The Python API, imported when used: other imports from the package load nothing of it."""
    if name == "CLM":
        from clm_core.session.home import CLM

        return CLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
