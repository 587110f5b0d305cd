"""Explanations of a version: sections of tables, charts and sentences, and the numbers behind them.

A section is computed once, by a function that knows the numbers, and shown by several places: the tear sheet,
the page of `clm explain --page`, the table in a terminal, the REST API and the artifacts in MLflow.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SectionTable(_Record):
    """Table of formatted cells."""

    title: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells of each row, in the order of the columns; the first names the row, the others are figures."""
    note: str = ""


class SectionChart(_Record):
    """Chart drawn by plotly."""

    name: str
    """Name within the section, of letters, digits and hyphens."""
    title: str = ""
    height: int | None = None
    """Height in pixels; None for the height of the other charts."""
    figure: dict[str, Any]
    """Traces (`data`) and `layout` of plotly, JSON-ready: no NaN, no numpy types. The page adds its fonts,
    margins and colours of the background."""
    note: str = ""


class Section(_Record):
    """Part of an explanation about one question."""

    name: str
    """Name in URLs, files and JSON, of letters, digits and hyphens."""
    title: str
    sentences: tuple[str, ...] = ()
    """Answer to the question in words, the most important sentence first."""
    tables: tuple[SectionTable, ...] = ()
    charts: tuple[SectionChart, ...] = ()
    values: dict[str, Any] = {}
    """Numbers behind the section, JSON-ready; None for what was not measured."""


class VersionExplanation(_Record):
    """Sections about a version, in the order of its pages."""

    model_id: str
    version: str
    sections: tuple[Section, ...]

    def values_of(self, name: str) -> dict[str, Any]:
        """Numbers behind a section; empty where there are none."""
        return next((each.values for each in self.sections if each.name == name), {})

    def with_sections(self, newer: Sequence[Section]) -> "VersionExplanation":
        """Newer sections in place of those of the same name; others follow."""
        by_name = {each.name: each for each in self.sections} | {each.name: each for each in newer}
        return self.model_copy(update={"sections": tuple(by_name.values())})

    def led_by(self, first: Sequence[Section]) -> "VersionExplanation":
        """These sections, in their order, before the sections of other names."""
        names = {each.name for each in first}
        others = (each for each in self.sections if each.name not in names)
        return self.model_copy(update={"sections": (*first, *others)})


class VersionComparison(_Record):
    """Two versions beside each other, in sections whose tables have a column for each."""

    first: str
    """Name of a version: `MODEL@VERSION`."""
    second: str
    sections: tuple[Section, ...]
