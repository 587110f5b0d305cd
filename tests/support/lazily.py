"""Modules that are imported by the tests that use them, and not by every process that collects the tests.

Each process of pytest-xdist collects all tests. The import of torch and neuralforecast takes three seconds of
processor time, and one process needs them.
"""

from importlib import import_module
from typing import Any


class Lazily:
    """Stand-in for a module; the first use of a public attribute imports the module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # pytest looks for marks of its own on every object of a test module
            raise AttributeError(name)
        return getattr(import_module(self._module), name)
