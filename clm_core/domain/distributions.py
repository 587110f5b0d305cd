"""Installed distributions, whose metadata is read once in a process."""

from functools import cache
from importlib.metadata import version


@cache
def installed_version(name: str) -> str:
    """Version of a distribution as of its first use: the code imported stays that of the start as well.

    Raises:
        PackageNotFoundError: no distribution has the name.
    """
    return version(name)
