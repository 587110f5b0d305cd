"""Page of a flow run in the Prefect UI: Markdown, tags and log. Without a flow run, nothing is shown."""

import logging
from collections.abc import Callable
from typing import Any

from clm_core.platform.flow_run import current_run


def show_markdown(key: str, write: Callable[[], str], description: str) -> None:
    """Add a page of Markdown to the run.

    Args:
        write: makes the Markdown.
    """
    if current_run() is None:
        return
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(write(), key=key, description=description)


def change_run(**fields: Any) -> None:
    """Change fields of the run, such as name and tags."""
    run = current_run()
    if run is None:
        return
    from prefect import get_client

    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, **fields)


def note(level: int, message: str, *values: object) -> None:
    """Write a line to the log of the run; whoever types a command is told the same by the command."""
    if current_run() is not None:
        run_logger().log(level, message, *values)


def run_logger() -> "logging.Logger | logging.LoggerAdapter[logging.Logger]":
    """Log of the run; without a flow run the log of the process, with warnings on the terminal."""
    if current_run() is None:
        return logging.getLogger(__name__)
    from prefect.logging import get_run_logger

    return get_run_logger()
