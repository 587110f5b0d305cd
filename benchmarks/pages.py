"""Tables of a benchmark within a page of the documentation."""

import fcntl
from collections.abc import Sequence
from pathlib import Path

END = "<!-- end -->"


def replace_part(document: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- begin: NAME -->` and the next `<!-- end -->`.

    Raises:
        ValueError: the page has no such part.
    """
    begin = f"<!-- begin: {name} -->"
    with document.open("r+", encoding="utf-8") as page:
        # parts of a page are made by several processes at a time
        fcntl.flock(page, fcntl.LOCK_EX)
        before, opening, after = page.read().partition(begin)
        _, closing, rest = after.partition(END)
        if not (opening and closing):
            raise ValueError(f"{document} has no part {begin} ... {END}")
        page.seek(0)
        page.truncate()
        page.write(f"{before}{begin}\n\n{text}\n{END}{rest}")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
