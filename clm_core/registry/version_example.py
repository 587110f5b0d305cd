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
_ROWS = json.JSONEncoder(separators=(",\n        ", ": "))
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
    forms: dict[str, Callable[[pd.DataFrame], str]] = {
        "artifact_path": plain_form,
        "serving_input_path": serving_form,
    }
    if any((folder / info[key]).read_text() != form(table.tail(1)) for key, form in forms.items()):
        return False
    for key, form in forms.items():
        (folder / info[key]).write_text(form(table))
    return True


def plain_form(table: pd.DataFrame) -> str:
    """Content of MLflow's `input_example.json`."""
    return json.dumps({"columns": list(table.columns), "data": _rows(table)})


def serving_form(table: pd.DataFrame) -> str:
    """Content of MLflow's `serving_input_example.json`: each cell on a line of its own."""
    frame = {"dataframe_split": {"columns": list(table.columns), "data": [[_ROW]]}}
    head, tail = json.dumps(frame, indent=2).split(f'"{_ROW}"')
    cells = _ROWS.encode(_rows(table))[2:-2]
    return head + cells.replace("],\n        [", "\n      ],\n      [\n        ") + tail


def _rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in table.columns), strict=True))
