"""Source of own features: import of a file, and digests of functions.

The digest of a function covers the definition, every definition of the same file that the function names,
directly or through others, and modules of the same package or folder that the file imports for them.
Comments, docstrings and blank lines do not count. Definitions the function does not name do not count
either, so that a file of features may grow while models trained with its older features are served.
"""

import ast
import hashlib
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from clm_core.domain.errors import FeatureFailed
from clm_core.market.whole_libraries import forget_without_sklearn

Text = dict[int, str]
"""Lines of a source by number, without comments, docstrings and blank lines."""


@dataclass(frozen=True, eq=False)
class SourceFile:
    """An imported file with own features."""

    name: str
    """Name in messages and bundles: `my_features.py`, `clm-momentum 1.2`."""
    path: Path
    source: bytes
    namespace: Mapping[str, Any]
    package: str
    """Package of the module; empty for a file."""

    def digest(self, variable: str, signature: str) -> str:
        """SHA-256 of the source of one variable of the file, hexadecimal.

        Args:
            signature: further properties covered.
        """
        parts = [signature, *self._parts(variable)]
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def _statements(self) -> Mapping[str, list[ast.stmt]]:
        """Statements at the top of the file by the names they bind."""
        bound: dict[str, list[ast.stmt]] = {}
        for statement in self._tree.body:
            for name in _names_bound(statement):
                bound.setdefault(name, []).append(statement)
        return bound

    def _parts(self, variable: str) -> Iterator[str]:
        # a name made at run time is found in no statement: then the whole file counts
        if variable not in self._statements:
            yield from _texts(self._tree.body, self.source)
            return
        # statements without a name, such as np.seterr(...), act on everything
        chosen: list[ast.stmt] = [
            each for each in self._tree.body if isinstance(each, ast.Expr) and not _is_text(each)
        ]
        seen = set[str]()
        waiting = [variable]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._statements:
                continue
            seen.add(name)
            for statement in self._statements[name]:
                chosen.append(statement)
                waiting += _names_used(statement)
        ordered = sorted({id(each): each for each in chosen}.values(), key=lambda each: each.lineno)
        yield from _texts(ordered, self.source)
        for module in sorted(self._modules(ordered)):
            yield from _whole_file(module)

    def _modules(self, statements: list[ast.stmt]) -> set[Path]:
        """Files of the same package or folder imported by the statements, directly or through others."""
        modules = set[Path]()
        waiting = [(statement, self.package) for statement in statements]
        while waiting:
            statement, package = waiting.pop()
            for name in _modules_imported(statement, package):
                path = self._neighbour(name)
                if path is not None and path not in modules and path != self.path:
                    modules.add(path)
                    inner = name if path.name == "__init__.py" else name.rpartition(".")[0]
                    waiting += [(each, inner) for each in ast.walk(ast.parse(path.read_bytes()))]  # type: ignore[misc]
        return modules

    def _neighbour(self, module: str) -> Path | None:
        """File of a module of the same package or folder; None for any other module."""
        try:
            spec = find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        root = self.package.partition(".")[0]
        path = Path(spec.origin)
        is_neighbour = module.partition(".")[0] == root if root else path.parent == self.path.parent
        return path if is_neighbour else None


def of_path(path: Path) -> SourceFile:
    """The file, imported under a name of its own.

    Raises:
        FeatureFailed: the file cannot be read or imported, or every user of the machine may write to it.
    """
    try:
        mode = path.stat().st_mode
        source = path.read_bytes()
    except OSError as error:
        raise FeatureFailed(
            f"the feature file {path} cannot be read ({error.strerror}): put it there, or correct "
            "[features] files in the settings"
        ) from error
    if mode & stat.S_IWOTH:
        raise FeatureFailed(
            f"every user of this machine may write to {path}, whose code is run: chmod o-w {path}"
        )
    module = ModuleType(f"clm_own_features_{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}")
    module.__file__ = str(path)
    # dataclasses and pickle look their module up by name
    sys.modules[module.__name__] = module
    forget_without_sklearn()
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise FeatureFailed(
            f"the feature file {path} cannot be imported ({type(error).__name__}: {error}): fix the file, or "
            "take it out of [features] files"
        ) from error
    return SourceFile(path.name, path, source, module.__dict__, package="")


def of_module(module: ModuleType, name: str) -> SourceFile:
    """The file of an imported module.

    Raises:
        FeatureFailed: the module has no Python source.
    """
    path = Path(module.__file__ or "")
    if path.suffix != ".py":
        raise FeatureFailed(
            f"{module.__name__} of {name} has no Python source: features are Python functions"
        )
    return SourceFile(name, path, path.read_bytes(), module.__dict__, module.__package__ or module.__name__)


def _names_bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for alias in names:
                yield alias.asname or alias.name.partition(".")[0]
        case _:
            for node in ast.walk(statement):
                match node:
                    case ast.Name(id=name, ctx=ast.Store()):
                        yield name
                    case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                        yield name
                    case ast.Import(names=names) | ast.ImportFrom(names=names):
                        for alias in names:
                            yield alias.asname or alias.name.partition(".")[0]


def _names_used(statement: ast.stmt) -> list[str]:
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]


def _modules_imported(statement: ast.AST, package: str) -> Iterator[str]:
    match statement:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            try:
                base = resolve_name("." * level + (module or ""), package) if level else module or ""
            except ImportError:
                return
            yield base
            yield from (f"{base}.{alias.name}" for alias in names)


def _whole_file(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    yield from _texts(ast.parse(source).body, source)


def _texts(statements: list[ast.stmt], source: bytes) -> Iterator[str]:
    """Source of statements, without comment lines, docstrings and blank lines."""
    lines = source.decode().splitlines()
    for statement in statements:
        left_out = {
            number
            for node in ast.walk(statement)
            if (text := _docstring(node)) is not None
            for number in range(text.lineno, (text.end_lineno or text.lineno) + 1)
        }
        for number in range(_first_line(statement), (statement.end_lineno or statement.lineno) + 1):
            line = lines[number - 1].rstrip()
            if number not in left_out and line and not line.lstrip().startswith("#"):
                yield line


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return int(min([statement.lineno, *(each.lineno for each in decorators)]))


def _docstring(node: ast.AST) -> ast.stmt | None:
    body = getattr(node, "body", None)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not body:
        return None
    first: ast.stmt = body[0]
    # a function of a docstring alone would be left without a body
    return first if _is_text(first) and len(body) > 1 else None


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
