"""Ratchet for plain English in docstrings: `make lint` fails where the numbers exceed the recorded limits.

Two shares are counted over the docstrings of the packages, those below the fields of a class included:
openings with a question word or a preposition, and pronouns per 100 words. The limits stand in
`pyproject.toml` under `[tool.prose]`; lower them whenever a room has been rewritten.

    python scripts/prose.py                          the numbers, and an error where they exceed the limits
    python scripts/prose.py --list clm_core/market   docstrings worth rewriting below a path, worst first
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("clm_core", "flows", "tasks", "deployments")
OPENING = re.compile(r"\s*(What|Who|Whom|Whose|Whether|Of|None:|By|Where|How)\b")
WORD = re.compile(r"[A-Za-z']+")
PRONOUNS = frozenset(
    word
    for words in (
        ("it", "its", "they", "them", "their", "one", "ones", "he", "she"),
        ("that", "this", "these", "those", "what", "who", "whoever", "which"),
        ("nobody", "somebody", "everybody", "others"),
    )
    for word in words
)


@dataclass(frozen=True)
class Docstring:
    """A docstring with file and line."""

    file: Path
    line: int
    text: str

    @property
    def opens_badly(self) -> bool:
        return OPENING.match(self.text) is not None

    @property
    def words(self) -> list[str]:
        return [word.lower() for word in WORD.findall(self.text)]

    @property
    def pronouns(self) -> list[str]:
        return [word for word in self.words if word in PRONOUNS]


def docstrings(paths: list[Path]) -> Iterator[Docstring]:
    """Docstrings of modules, classes, functions and fields in the Python files below the paths."""
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                yield from _of_node(file, node)


def _of_node(file: Path, node: ast.AST) -> Iterator[Docstring]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield Docstring(file, node.body[0].lineno, text)
    if isinstance(node, ast.ClassDef):
        # the class's own docstring counts a second time here, as it does in the reference count
        for statement in node.body:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield Docstring(file, statement.lineno, text)


def share_of_openings(texts: list[Docstring]) -> float:
    """Percentage of the docstrings that open with a question word or a preposition."""
    return 100 * sum(each.opens_badly for each in texts) / max(1, len(texts))


def pronouns_per_100_words(texts: list[Docstring]) -> float:
    words = sum(len(each.words) for each in texts)
    return 100 * sum(len(each.pronouns) for each in texts) / max(1, words)


def _print_worst(texts: list[Docstring]) -> None:
    worth = {each for each in texts if each.opens_badly or len(each.pronouns) * 20 > len(each.words)}
    for each in sorted(worth, key=lambda each: (-each.opens_badly, -len(each.pronouns))):
        text = " ".join(each.text.split())
        print(f"{each.file}:{each.line}: [{len(each.pronouns)}/{len(each.words)}] {text[:160]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="Files or folders; all packages by default.")
    parser.add_argument("--list", action="store_true", help="List the docstrings worth rewriting.")
    arguments = parser.parse_args()
    texts = list(docstrings(arguments.paths or [ROOT / package for package in PACKAGES]))
    if arguments.list:
        _print_worst(texts)
    openings = share_of_openings(texts)
    pronouns = pronouns_per_100_words(texts)
    print(f"openings {openings:.1f} % of {len(texts)} docstrings, pronouns {pronouns:.1f} per 100 words")
    if arguments.paths:
        return 0
    limits = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["prose"]
    exceeded = [
        f"{name} are {value:.2f}, the limit is {limit}: rewrite the docstrings of this change "
        f"(`python {Path(__file__).relative_to(ROOT)} --list PATH` shows which)"
        for name, value, limit in (
            ("openings", openings, limits["max_openings_percent"]),
            ("pronouns", pronouns, limits["max_pronouns_per_100_words"]),
        )
        if not value <= limit
    ]
    print(*exceeded, sep="\n", end="\n" if exceeded else "", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
