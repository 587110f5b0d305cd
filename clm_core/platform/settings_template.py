"""Commented settings file, generated from the records of the settings: meaning and default of each.

A line `#name = value` shows a default and can be uncommented as it stands. A line `# name = ...` with the
type of the value stands for a setting without a default.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

WIDTH = 100
HEADER = """\
# Settings of the CLM home in this folder.
#
# A line "#name = value" shows a default: to change it, remove the "#" there and before the [table] above.
# A line "# name = ..." shows a setting without a default; None in an explanation means "not set".
# Relative paths start at the folder of this file. A variable CLM_TABLE__NAME takes precedence over the file.
# `clm config` prints the settings in force; `clm down` and `clm up` bring a change into a running stack.
"""


def commented_settings(settings: type[BaseModel], leave_out: Collection[str]) -> str:
    """Settings file in which every line is a comment.

    Args:
        leave_out: names of settings without a place in the file.
    """
    own = {name: field for name, field in settings.model_fields.items() if name not in leave_out}
    docs = docstrings(settings)
    # TOML: values before the first table belong to no table
    values = {name: field for name, field in own.items() if not _is_table(field)}
    tables = {name: field for name, field in own.items() if _is_table(field)}
    lines = [line for name, field in values.items() for line in _value(name, field, docs)]
    for name, field in tables.items():
        lines += ["", "", *_table((name,), field, docs.get(name))]
    return "\n".join([HEADER, *lines]) + "\n"


def docstrings(group: type[BaseModel]) -> dict[str, str]:
    """Docstrings below the fields of a record, inherited fields included, each on one line."""
    texts = dict[str, str]()
    for base in reversed(group.__mro__):
        if isinstance(base, type) and issubclass(base, BaseModel) and base.__module__.startswith("clm_core"):
            texts |= _own_docstrings(base)
    return texts


def _own_docstrings(group: type[BaseModel]) -> dict[str, str]:
    [body] = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _is_table(field: FieldInfo) -> bool:
    return _record(field.annotation) is not None


def _record(annotation: Any) -> type[BaseModel] | None:
    """Record of a group, or of the members of a list or table of groups."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    records = (_record(each) for each in get_args(annotation))
    return next((each for each in records if each is not None), None)


def _table(path: tuple[str, ...], field: FieldInfo, about: str | None) -> Iterator[str]:
    """Lines of a group, or of a list or table of groups."""
    record = _required(field)
    yield from _prose(about or _summary(record))
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        yield f"#[{'.'.join(path)}]"
        yield from _members(path, record, default)
    elif isinstance(default, tuple):
        for member in default or (None,):
            yield f"{'#' if default else '# '}[[{'.'.join(path)}]]"
            yield from _members(path, record, member)
    else:
        yield from _example(path if default is None else (*path, "NAME"), record)


def _example(path: tuple[str, ...], record: type[BaseModel]) -> Iterator[str]:
    """Lines of a group without a default: nothing can be uncommented as it stands."""
    yield f"# [{'.'.join(path)}]"
    yield from _members(path, record, None)


def _members(path: tuple[str, ...], record: type[BaseModel], default: BaseModel | None) -> Iterator[str]:
    docs = docstrings(record)
    tables = {name: field for name, field in record.model_fields.items() if _is_table(field)}
    for name, field in record.model_fields.items():
        if name not in tables:
            yield from _value(name, field, docs, default, is_example=default is None)
    for name, field in tables.items():
        yield ""
        if default is None:
            yield from _prose(docs.get(name) or _summary(_required(field)))
            yield from _example((*path, name), _required(field))
        else:
            yield from _table((*path, name), field, docs.get(name))


def _required(field: FieldInfo) -> type[BaseModel]:
    record = _record(field.annotation)
    assert record is not None
    return record


def _value(
    name: str,
    field: FieldInfo,
    docs: Mapping[str, str],
    group: BaseModel | None = None,
    *,
    is_example: bool = False,
) -> Iterator[str]:
    """Meaning and default of a value.

    Args:
        group: the default of the group, if the value belongs to one.
    """
    yield from _prose(docs.get(name))
    if field.is_required() and group is None:
        yield f"# {name} = ...    ({_type_in_words(field.annotation)}; required)"
        return
    value = (
        field.get_default(call_default_factory=True, validated_data={})
        if group is None
        else getattr(group, name)
    )
    if value is None:
        yield f"# {name} = ...    ({_type_in_words(field.annotation)}; not set)"
    else:
        yield f"{'# ' if is_example else '#'}{name} = {_toml(value)}"


def _prose(text: str | None) -> list[str]:
    return [] if text is None else textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _summary(record: type[BaseModel]) -> str | None:
    return (record.__dict__.get("__doc__") or "").partition("\n")[0] or None


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Enum():
            return json.dumps(value.value)
        case int() | float():
            return f"{value:_}" if isinstance(value, int) and value >= 10_000 else repr(value)
        case str() | Path():
            return json.dumps(str(value))
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{name} = {_toml(each)}' for name, each in value.items())}}}"
    raise TypeError(f"a default of {type(value).__name__} cannot be written as TOML")


def _type_in_words(annotation: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        Path: "path",
        SecretStr: "text",
    }
    if annotation in kinds:
        return kinds[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(str(each.value) for each in annotation)
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (tuple, list):
        return f"list of {_type_in_words(arguments[0])}"
    if origin is dict:
        return "table"
    given = [each for each in arguments if each is not NoneType]
    # Annotated[...] has its type first
    return _type_in_words(given[0]) if given else "text"
