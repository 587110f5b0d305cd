"""Map in `docs/architecture.md`, generated from the import graph and the docstrings of the rooms.

    python scripts/architecture.py           print the map
    python scripts/architecture.py --write   write the map into docs/architecture.md

A test compares the page with the code, so the page cannot show an arrow that no import makes.
"""

import ast
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- begin: python scripts/architecture.py --write -->"
END = "<!-- end -->"
STOREYS = {
    "Deployments, flows, tasks": ("deployments", "flows", "tasks"),
    "Entry points": (
        "clm_core.cli",
        "clm_core.api",
        "clm_core.session",
        "clm_core.serving",
        "clm_core.testing",
    ),
    "Processes": (
        "clm_core.lifecycle",
        "clm_core.operations",
        "clm_core.triggers",
        "clm_core.retraining",
        "clm_core.search",
    ),
    "Stores": (
        "clm_core.services",
        "clm_core.registry",
        "clm_core.ledger",
        "clm_core.settings",
        "clm_core.platform",
    ),
    "Numerics": (
        "clm_core.decisions",
        "clm_core.explain",
        "clm_core.evidence",
        "clm_core.evolution",
        "clm_core.backtest",
        "clm_core.models",
        "clm_core.market",
    ),
    "Words": ("clm_core.domain",),
}
"""Rooms of each storey, from the top down."""
ROOMS = tuple(room for rooms in STOREYS.values() for room in rooms)


def import_graph() -> grimp.ImportGraph:
    """Imports between the modules of the project, those inside functions included."""
    packages = ("clm_core", "flows", "tasks", "deployments")
    return grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if module == room or module.startswith(f"{room}.")), None)


def arrows(graph: grimp.ImportGraph) -> set[tuple[str, str]]:
    """Pairs of an importing and an imported room."""
    pairs = {
        (room_of(importer), room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return {(upper, lower) for upper, lower in pairs if upper and lower and upper != lower}


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows without the arrows implied by a longer path."""
    below: dict[str, set[str]] = {room: {lower for upper, lower in pairs if upper == room} for room in ROOMS}

    def reaches(start: str, goal: str) -> bool:
        return any(step == goal or reaches(step, goal) for step in below[start])

    return {
        (upper, lower)
        for upper, lower in pairs
        if not any(step != lower and reaches(step, lower) for step in below[upper])
    }


def sentence(room: str) -> str:
    """First line of the docstring of a room."""
    folder = ROOT / room.replace(".", "/")
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _short(room: str) -> str:
    return room.removeprefix("clm_core.")


def architecture_map(graph: grimp.ImportGraph) -> str:
    """Map as Markdown: a Mermaid figure of the arrows and a table of the rooms."""
    lines = [BEGIN, "", "```mermaid", "flowchart TD"]
    for number, (storey, rooms) in enumerate(STOREYS.items()):
        lines += [
            f'    subgraph storey{number}["{storey}"]',
            *(f"        {_short(room)}" for room in rooms),
            "    end",
        ]
    lines += [f"    {_short(upper)} --> {_short(lower)}" for upper, lower in sorted(reduced(arrows(graph)))]
    lines += ["```", "", "| storey | room | contents |", "| --- | --- | --- |"]
    for storey, rooms in STOREYS.items():
        lines += [f"| {storey} | `{room.replace('.', '/')}` | {sentence(room)} |" for room in rooms]
    return "\n".join([*lines, "", END])


def main() -> int:
    block = architecture_map(import_graph())
    if "--write" not in sys.argv[1:]:
        print(block)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    before = page.partition(BEGIN)[0]
    after = page.partition(END)[2]
    PAGE.write_text(before + block + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
