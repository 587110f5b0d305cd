"""Results as HTML for a notebook, and as values and tables for a program."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_core.backtest.tearsheet import TONES, render_fragment, section_figures
from clm_core.domain.errors import NotFound
from clm_core.domain.evaluations import CHECK_COLUMNS, Decision, EvaluationResult, Verdict
from clm_core.domain.explanations import Section, SectionTable, VersionComparison, VersionExplanation
from clm_core.domain.shadow_decisions import ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.explain.equity_overlay import TradedCurve, common_span
from clm_core.session import tables

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class VersionReport:
    """A judged version: verdict, reasons and figures; a notebook adds the equity curve."""

    version: ModelVersion
    verdict: Verdict
    evaluation: EvaluationResult
    """Out-of-sample results after costs, with period and terms."""
    changes: tuple[str, ...]
    """A sentence for each change to a PASS; empty for a passed version."""
    page: Path | None
    """Tear sheet, an HTML file; None for a version whose files were removed."""
    picture: bytes | None = field(repr=False)
    """Equity curve as PNG; None like `page`."""
    shadow_decision: ShadowDecision | None = None
    """Decision taken at once on a refresh of the champion's recipe; None for any other version."""

    @property
    def name(self) -> str:
        """`MODEL@VERSION`, as every method of a session takes it."""
        return f"{self.version.model_id}@{self.version.version}"

    @property
    def decision(self) -> Decision:
        return self.verdict.decision

    @property
    def passed(self) -> bool:
        return self.verdict.passed

    @property
    def headline(self) -> str:
        """`FAIL: 2 of 9 checks missed`."""
        return self.verdict.headline

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence for each missed check, and then the warnings as notes."""
        return self.verdict.sentences

    @property
    def checks(self) -> "pd.DataFrame":
        """A row a check, by name: kind, value, low and high (interval of 95 %), comparison, limit, status."""
        return tables.checks_table(self.verdict.checks)

    @property
    def folds(self) -> "pd.DataFrame":
        """A row a fold of the walk-forward: start and end (open times in UTC), skill, Sharpe ratio, exposure,
        trades, remarks."""
        return tables.folds_table(self.verdict.folds)

    def __repr__(self) -> str:
        return "\n".join([f"{self.name}: {self.headline}", *(f"  - {each}" for each in self.reasons)])

    def _repr_html_(self) -> str:
        title = "Changes that would let the version pass"
        changes = Section(name="changes", title=title, sentences=self.changes)
        return render_fragment(
            title=self.name,
            badge=self.decision.value.upper(),
            tone=TONES[self.decision],
            subtitle=self.verdict.count,
            sections=[self._checks_section(), *([changes] if self.changes else [])],
            picture=self.picture,
        )

    def _checks_section(self) -> Section:
        rows = tuple(check.cells for check in self.verdict.checks)
        period = f"{self.evaluation.period_start:%Y-%m-%d} to {self.evaluation.period_end:%Y-%m-%d}"
        sheet = "" if self.page is None else f" Tear sheet: {self.page}"
        note = f"Out of sample {period}, after {self.evaluation.costs_in_words}.{sheet}"
        return Section(
            name="checks",
            title="Checks",
            sentences=self.reasons,
            tables=(SectionTable(columns=CHECK_COLUMNS, rows=rows, note=note),),
        )


@dataclass(frozen=True, eq=False)
class ComparisonView:
    """Two versions beside each other."""

    compared: VersionComparison
    """All sections, as the page and `clm compare --json` have them."""
    first_curve: TradedCurve | None = field(repr=False)
    """Out-of-sample returns of the first; None where the positions are stored no more."""
    second_curve: TradedCurve | None = field(repr=False)
    page: Path
    """Page with charts, an HTML file."""

    @property
    def metrics(self) -> "pd.DataFrame":
        """A row a metric, a column a version."""
        return self._both("verdict", "metrics")

    @property
    def parameters(self) -> "pd.DataFrame":
        """A row a training parameter, a column a version; None where a version has no such parameter."""
        return self._both("parameters")

    @property
    def differing(self) -> "pd.DataFrame":
        """Facts and parameters of the training that differ, as `parameters`."""
        return self._both("training", "differing")

    @property
    def equity(self) -> "pd.DataFrame":
        """A column a version: equity over the common time, 1 at its start, over the closes of the bars (UTC).

        Without rows where the versions have no common time, or positions are stored no more.
        """
        pair = None
        if self.first_curve is not None and self.second_curve is not None:
            pair = common_span(self.first_curve, self.second_curve)
        return tables.curves_table(self._names, pair)

    @property
    def figure(self) -> "go.Figure":
        """Equity and drawdown of both, drawn by plotly; without traces where there is no common time."""
        return figures_of(self.compared.sections).get("equity-curves", empty_figure())

    def __repr__(self) -> str:
        sentences = [sentence for each in self.compared.sections for sentence in each.sentences]
        return "\n".join([f"{self.compared.first} beside {self.compared.second}", *sentences])

    def _repr_html_(self) -> str:
        title = f"{self.compared.first} beside {self.compared.second}"
        return sections_html(title, "", self.compared.sections)

    @property
    def _names(self) -> tuple[str, str]:
        return self.compared.first, self.compared.second

    def _both(self, section: str, key: str | None = None) -> "pd.DataFrame":
        values = next(each.values for each in self.compared.sections if each.name == section)
        return tables.pairs_table(self._names, values if key is None else values[key])


@dataclass(frozen=True, eq=False)
class ExplanationView:
    """Explanation of a version in sections: features, calibration, sources of the profit."""

    explanation: VersionExplanation
    """All sections, as the page and `clm explain --json` have them."""
    page: Path
    """Page with charts, an HTML file."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections, in order."""
        return tuple(each.name for each in self.explanation.sections)

    @property
    def figures(self) -> "dict[str, go.Figure]":
        """Charts drawn by plotly, by SECTION-CHART."""
        return figures_of(self.explanation.sections)

    def tables(self, section: str) -> "dict[str, pd.DataFrame]":
        """Tables of a section, with formatted cells, by title.

        Raises:
            NotFound: there is no such section.
        """
        return tables.section_tables(self._section(section))

    def values(self, section: str) -> dict[str, Any]:
        """Numbers behind a section, JSON-ready.

        Raises:
            NotFound: there is no such section.
        """
        return self._section(section).values

    def __repr__(self) -> str:
        name = f"{self.explanation.model_id}@{self.explanation.version}"
        sentences = (f"{each.title}: {line}" for each in self.explanation.sections for line in each.sentences)
        return "\n".join([name, *sentences])

    def _repr_html_(self) -> str:
        name = f"{self.explanation.model_id}@{self.explanation.version}"
        return sections_html(name, "", self.explanation.sections)

    def _section(self, name: str) -> Section:
        for each in self.explanation.sections:
            if each.name == name:
                return each
        raise NotFound(f"There is no section {name!r}; there are: {', '.join(self.sections)}.")


def sections_html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Sections as a notebook shows them: sentences and tables."""
    return render_fragment(title=title, badge="", tone="muted", subtitle=subtitle, sections=sections)


def figures_of(sections: Sequence[Section]) -> "dict[str, go.Figure]":
    """Charts of sections, by SECTION-CHART."""
    import plotly.graph_objects as go

    return {place: go.Figure(figure) for place, figure in section_figures(sections).items()}


def empty_figure() -> "go.Figure":
    import plotly.graph_objects as go

    return go.Figure()
