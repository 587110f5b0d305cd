"""Options of commands that write a page for the browser."""

import json
from pathlib import Path
from typing import Annotated

import typer

WritesPage = Annotated[bool, typer.Option("--page", help="Write a page with charts; prints the path alone.")]
OpensPage = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def hand_over(page: Path, open_page: bool, as_json: bool = False) -> None:
    """Print the path of a page, and open the page if asked to."""
    typer.echo(json.dumps({"page": str(page)}) if as_json else page)
    if open_page:
        typer.launch(page.as_uri())
