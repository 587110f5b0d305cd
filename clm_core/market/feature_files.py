"""Files with own features in force in this process.

Parameters and models are made in many places, so the files are known to the process as a whole, as the entry
points of installed distributions are. The settings name the files, or a trader's program does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_source: Callable[[], Sequence[Path]] = tuple


@contextmanager
def use(files: Sequence[Path]) -> Iterator[None]:
    """Own features of these files and of the installed distributions, while the block lasts."""
    global _source  # noqa: PLW0603 - see the docstring of the module
    before = _source

    def given() -> Sequence[Path]:
        return files

    _source = given
    try:
        yield
    finally:
        _source = before


def use_files(files: Sequence[Path | str]) -> None:
    """Own features of these files and of the installed distributions, from now on in this process."""
    use_files_of(lambda: [Path(file).absolute() for file in files])


def use_files_of(source: Callable[[], Sequence[Path]]) -> None:
    """As `use_files`, with files asked for when an own feature is needed."""
    global _source  # noqa: PLW0603 - see the docstring of the module
    _source = source


def files_chosen() -> bool:
    """True if this process was told the files, by `use`, `use_files` or `use_files_of`."""
    return _source is not tuple


def files() -> tuple[Path, ...]:
    """Files with own features in this process."""
    return tuple(_source())
