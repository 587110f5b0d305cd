"""Plain English in docstrings and names: `make lint` fails where the numbers exceed the recorded limits,
where a local variable or an argument has a name of `REPLACEMENTS`, and where a line has two assignments.

Two shares are counted over the docstrings of the packages, those below the fields of a class included:
openings with a question word or a preposition, and pronouns per 100 words. The limits stand in
`pyproject.toml` under `[tool.prose]`; lower them whenever a room has been rewritten.

    python scripts/prose.py                          the numbers, and an error where they exceed the limits;
                                                     names of locals and assignments in all Python files
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
CODE = (*PACKAGES, "benchmarks", "examples", "scripts", "tests")
STORED = ROOT / "tests" / "data"
REPLACEMENTS = {
    "asked": "request, query, conditions",
    "fewest": "min_...",
    "found": "versions, matches, row, report",
    "most": "max_...",
    "told": "messages, events, sentences",
    "wanted": "expected, requested, targets",
}
"""Names of locals that say what happened, each with nouns that say what the value is."""
OPENING = re.compile(r"\s*(What|Who|Whom|Whose|Whether|Of|None:|By|Where|How)\b")
WORD = re.compile(r"[A-Za-z']+")
ANY_REPLACED = re.compile(rf"\b({'|'.join(REPLACEMENTS)})\b")
ANY_PAIR = re.compile(r"^[^\n#=\"']+, [^\n=\"']* = ", re.MULTILINE)
"""Line that may assign to several targets."""
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


@dataclass(frozen=True)
class NamedLocal:
    """A local variable, loop variable or argument with file and line."""

    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return (
            f"{_place(self.file)}:{self.line}: the name `{self.name}` does not say what the value is: take a "
            f"noun ({REPLACEMENTS[self.name]})"
        )


@dataclass(frozen=True)
class CrowdedLine:
    """Line with several assignments."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{_place(self.file)}:{self.line}: several assignments in a line: take a line for each"


def _place(file: Path) -> Path:
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def docstrings(paths: list[Path]) -> Iterator[Docstring]:
    """Docstrings of modules, classes, functions and fields in the Python files below the paths."""
    for file in _files(paths):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield from _of_node(file, node)


def unclear_locals(paths: list[Path]) -> Iterator[NamedLocal]:
    """Local variables, loop variables and arguments with a name of `REPLACEMENTS`.

    Fields of a class and attributes keep such names: stored records and answers have them.
    """
    for file in _files(paths):
        text = file.read_text(encoding="utf-8")
        # spares the parsing of most files
        if ANY_REPLACED.search(text):
            places = sorted(_locals(ast.parse(text)))
            yield from (NamedLocal(file, line, name) for line, name in places if name in REPLACEMENTS)


def crowded_lines(paths: list[Path]) -> Iterator[CrowdedLine]:
    """Lines that assign values written out to several targets.

    Allowed where a value is that of another target before, as in an exchange of two values, and so is the
    result of a call that has several values.
    """
    for file in _files(paths):
        text = file.read_text(encoding="utf-8")
        if ANY_PAIR.search(text):
            yield from (CrowdedLine(file, line) for line in sorted(_pairs(ast.parse(text))))


def _pairs(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                given = {ast.unparse(part) for each in values for part in ast.walk(each)}
                if given.isdisjoint(map(ast.unparse, targets)):
                    yield node.lineno


def _files(paths: list[Path]) -> Iterator[Path]:
    """Python files below the paths, without those written by earlier releases."""
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        yield from (file for file in files if not file.is_relative_to(STORED))


def _locals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each argument, and of each variable where a value is assigned."""
    nodes = list(ast.walk(tree))
    fields = {target for node in nodes if isinstance(node, ast.ClassDef) for target in _fields(node)}
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if node not in fields:
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield node.lineno, name


def _fields(record: ast.ClassDef) -> Iterator[ast.expr]:
    for statement in record.body:
        match statement:
            case ast.AnnAssign(target=target):
                yield target
            case ast.Assign(targets=targets):
                yield from targets


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
    code = arguments.paths or [ROOT / folder for folder in CODE]
    refused = [*unclear_locals(code), *crowded_lines(code)]
    texts = list(docstrings(arguments.paths or [ROOT / package for package in PACKAGES]))
    if arguments.list:
        _print_worst(texts)
    openings = share_of_openings(texts)
    pronouns = pronouns_per_100_words(texts)
    print(f"openings {openings:.1f} % of {len(texts)} docstrings, pronouns {pronouns:.1f} per 100 words")
    print(*refused, sep="\n", end="\n" if refused else "", file=sys.stderr)
    if arguments.paths:
        return 1 if refused else 0
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
    return 1 if exceeded or refused else 0


if __name__ == "__main__":
    sys.exit(main())
