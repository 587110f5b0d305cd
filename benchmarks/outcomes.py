"""Outcomes of a long benchmark, kept a line each, so that a stopped run continues."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

R = TypeVar("R")


def keep(folder: Path, name: str, records: Sequence[Any]) -> None:
    """Append records, which are dataclasses, to `NAME.jsonl` in a folder."""
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(asdict(each)) + "\n" for each in records)


def kept(folder: Path, name: str, kind: type[R]) -> list[R]:
    """Records of `NAME.jsonl` in a folder, in the order kept."""
    path = folder / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [kind(**json.loads(line)) for line in lines]
