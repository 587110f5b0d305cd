"""Verdicts as Markdown: the same checks, names, order and numbers for the run's page and for MLflow."""

from collections.abc import Iterable, Sequence

from clm_core.domain.evaluations import (
    BASELINE_COLUMNS,
    CHECK_COLUMNS,
    FOLD_COLUMNS,
    RULE_COLUMNS,
    RULE_NOTE,
    SYMBOL_COLUMNS,
    Verdict,
)

TITLE = "### Verdict"
"""Beginning of the part about the verdict in a description."""


def description(verdict: Verdict) -> str:
    """Headline, reasons and checks, for the description of a version in MLflow."""
    lines = [f"{TITLE} {verdict.headline}", "", *bullets(verdict), *table(CHECK_COLUMNS, check_rows(verdict))]
    return "\n".join(lines).strip()


def status_description(sentence: str, present: str) -> str:
    """A sentence on a change of status, above the part of the present description about the verdict."""
    _, title, rest = present.partition(TITLE)
    return f"{sentence}\n\n{title}{rest}" if title else sentence


def check_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """Cells of each check, in the order of `CHECK_COLUMNS`."""
    return [check.cells for check in verdict.checks]


def bullets(verdict: Verdict) -> list[str]:
    """Reasons and warnings as a list, with an empty line below; empty without any."""
    sentences = verdict.sentences
    return [*(f"- {sentence}" for sentence in sentences), *([""] if sentences else [])]


def baseline_table(verdict: Verdict) -> list[str]:
    """Table of the baselines; empty for a verdict without baselines."""
    if not verdict.baselines:
        return []
    rows = [each.cells for each in verdict.baselines]
    return [*table(BASELINE_COLUMNS, rows), "In brackets the interval of 95 %.", ""]


def rule_table(verdict: Verdict) -> list[str]:
    """Table of the rule strategies at their defaults; empty for a verdict without."""
    if not verdict.rules:
        return []
    return [*table(RULE_COLUMNS, [each.cells for each in verdict.rules]), RULE_NOTE, ""]


def fold_table(verdict: Verdict) -> list[str]:
    """Table with a row a fold; empty for a verdict without folds."""
    return table(FOLD_COLUMNS, [each.cells for each in verdict.folds]) if verdict.folds else []


def symbol_table(verdict: Verdict) -> list[str]:
    """Table of the symbols of a pool; empty for one market."""
    if not verdict.by_symbol:
        return []
    rows = [(each.symbol, *each.cells, each.costs) for each in verdict.by_symbol]
    return [
        *table(("symbol", *SYMBOL_COLUMNS, "costs"), rows),
        "The pool is judged as the equal-risk portfolio of its symbols; the contributions add up to the sum "
        "of the portfolio's returns.",
        "",
    ]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty line below."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
