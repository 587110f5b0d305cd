"""Example of a version in MLflow: the bars that a prediction needs, in the two files that MLflow writes.

MLflow writes a table in two forms, cell by cell, and looks at each cell although a version takes values of
any type: 30 ms for two thousand bars. MLflow writes and examines the last row, and the files are completed
with the other rows in the same forms.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

_ROW = "row"
_BETWEEN = ",\n        "
_ROWS = json.JSONEncoder(separators=(_BETWEEN, ": "))
"""Encoder of rows whose cells stand below each other."""


def can_be_completed(example: Any) -> bool:
    """True for a table without missing values; others are MLflow's alone."""
    return isinstance(example, pd.DataFrame) and len(example) > 0 and not example.isna().to_numpy().any()


def complete(folder: Path, info: Mapping[str, str], table: pd.DataFrame) -> bool:
    """Write the rows of a table into the files of an example with the last row.

    Args:
        folder: folder of the version with the files.
        info: MLflow's names of the files.
        table: whole table, see `can_be_completed`.

    Returns:
        False for files of another form than that of this release, which stay as they are.
    """
    columns = list(table.columns)
    last = encoded_rows(table.tail(1))
    if any((folder / info[key]).read_text() != form(columns, last) for key, form in _FORMS.items()):
        return False
    write(folder, info, table)
    return True


def write(folder: Path, info: Mapping[str, str], table: pd.DataFrame) -> int:
    """Write the files of an example.

    Args:
        folder: folder of the version.
        info: MLflow's names of the files.
        table: whole table, see `can_be_completed`.

    Returns:
        Bytes of the two files of an example with the last row alone.
    """
    columns = list(table.columns)
    cells = _cells(table)
    rows = _ROWS.encode(cells)
    last = _ROWS.encode(cells[-1:])
    for key, form in _FORMS.items():
        (folder / info[key]).write_text(form(columns, rows))
    return sum(len(form(columns, last).encode()) for form in _FORMS.values())


def size(folder: Path, info: Mapping[str, str]) -> int:
    """Bytes of the two files of an example."""
    return sum((folder / info[key]).stat().st_size for key in _FORMS)


def plain_form(columns: list[str], rows: str) -> str:
    """Content of MLflow's `input_example.json`.

    Args:
        rows: see `encoded_rows`.
    """
    # a line break within a cell is escaped
    return f'{{"columns": {json.dumps(columns)}, "data": {rows.replace(_BETWEEN, ", ")}}}'


def serving_form(columns: list[str], rows: str) -> str:
    """Content of MLflow's `serving_input_example.json`: each cell on a line of its own.

    Args:
        rows: see `encoded_rows`.
    """
    frame = {"dataframe_split": {"columns": columns, "data": [[_ROW]]}}
    head, tail = json.dumps(frame, indent=2).split(f'"{_ROW}"')
    return head + rows[2:-2].replace(f"]{_BETWEEN}[", "\n      ],\n      [\n        ") + tail


def encoded_rows(table: pd.DataFrame) -> str:
    """Rows of a table as JSON, with cells and rows below each other."""
    return _ROWS.encode(_cells(table))


def _cells(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """Rows of a table as plain Python objects."""
    return list(zip(*(table[name].tolist() for name in table.columns), strict=True))


_FORMS: dict[str, Callable[[list[str], str], str]] = {
    "artifact_path": plain_form,
    "serving_input_path": serving_form,
}
"""Content of a file by MLflow's key for the name of the file."""
