"""The code keeps to its map: storeys, arrows, names."""

import ast
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import architecture  # noqa: E402 - a script, found by its folder
import grimp  # noqa: E402

PACKAGES = ("clm_core", "flows", "tasks", "deployments")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return architecture.import_graph()


def test_the_map_in_the_documentation_is_the_import_graph(graph: grimp.ImportGraph) -> None:
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.architecture_map(graph) in page, "run `python scripts/architecture.py --write`"


def test_every_module_belongs_to_a_room_of_the_map(graph: grimp.ImportGraph) -> None:
    homeless = {module for module in graph.modules if architecture.room_of(module) is None}
    assert homeless <= {"clm_core"}


def test_no_arrow_between_rooms_turns_back(graph: grimp.ImportGraph) -> None:
    below = defaultdict[str, set[str]](set)
    for upper, lower in architecture.arrows(graph):
        below[upper].add(lower)
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other: {' -> '.join(error.args[1])}")


def test_no_import_makes_a_circle_between_modules_not_even_a_lazy_import(graph: grimp.ImportGraph) -> None:
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_no_public_class_name_is_used_twice() -> None:
    places = defaultdict[str, list[str]](list)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


READ_THE_CLOCK_OF_THE_MACHINE = {
    "clm_core/cli/data.py",
    "clm_core/cli/data_replace.py",
    "clm_core/cli/evolve.py",
    "clm_core/cli/features.py",
    "clm_core/cli/gate_simulations.py",
    "clm_core/cli/retrain.py",
    "clm_core/cli/strategies.py",
    "clm_core/cli/tune.py",
    "clm_core/market/own_candles.py",
    "clm_core/registry/serving.py",
    "clm_core/testing/contract.py",
    "clm_core/testing/features.py",
    "deployments/stack.py",
    "deployments/watchdog.py",
}
"""Entry points without a database: market data in files, traders, the display of `clm up`, the alert on a
database that does not answer."""


def test_only_entry_points_without_a_database_read_the_clock_of_their_machine() -> None:
    readers = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
        if isinstance(node.value, ast.Name) and node.value.id in {"datetime", "date", "Timestamp"}
    }
    assert readers == READ_THE_CLOCK_OF_THE_MACHINE


SLOW_IMPORTS = {
    "torch",
    "neuralforecast",
    "gymnasium",
    "stable_baselines3",
    "skops",
    "arch",
    "ray",
    "shap",
    "clm_core.models.networks.architecture",
    "clm_core.models.networks.training",
    "clm_core.models.policies.trading_env",
}
"""Libraries of few tests, and modules that import such a library."""


def test_no_test_module_imports_a_slow_library_when_tests_are_collected() -> None:
    # each process of pytest-xdist collects every test
    slow = list[str]()
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if (ROOT / "tests" / "data") in file.parents:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set[str]()
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            if any(name == each or name.startswith(f"{each}.") for name in names for each in SLOW_IMPORTS):
                slow.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert slow == [], "import in the test that needs the library, or see tests/support/lazily.py"
