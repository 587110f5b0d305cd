"""Exit codes of the commands; docs/reference/command-line.md lists them."""

from enum import IntEnum


class ExitCode(IntEnum):
    FAILED = 1
    """An error, or a check that found a problem."""
    USAGE = 2
    """Wrong usage: an unknown command or option, or a value that is not valid; nothing was done."""
    NOT_UP = 3
    """`clm status`: the servers are not up."""
    INTERRUPTED = 130
    """Ctrl-C."""
