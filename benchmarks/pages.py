"""Tables of a benchmark within a page of the documentation."""

from collections.abc import Sequence
from pathlib import Path

END = "<!-- end -->"


def replace_part(document: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- begin: NAME -->` and the next `<!-- end -->`.

    Raises:
        ValueError: the page has no such part.
    """
    begin = f"<!-- begin: {name} -->"
    before, found, after = document.read_text(encoding="utf-8").partition(begin)
    _, ended, rest = after.partition(END)
    if not (found and ended):
        raise ValueError(f"{document} has no part {begin} ... {END}")
    document.write_text(f"{before}{begin}\n\n{text}\n{END}{rest}", encoding="utf-8")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
