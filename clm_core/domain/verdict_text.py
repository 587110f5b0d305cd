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


def narrow_check_table(verdict: Verdict) -> list[str]:
    """Table of the checks, the result first; remarks on a value are left to the reasons."""
    rows = [(label, value.partition(", ")[0], *rest) for label, value, *rest in check_rows(verdict)]
    return _narrow(("result", "check", "measured", "required"), CHECK_COLUMNS, rows)


def fold_table(verdict: Verdict) -> list[str]:
    """Narrow table with a row a fold; empty for a verdict without folds."""
    names = ("fold", "Sharpe ratio", "skill", "exposure", "trades")
    return _narrow(names, FOLD_COLUMNS, [each.cells for each in verdict.folds])


def baseline_table(verdict: Verdict) -> list[str]:
    """Narrow table of the baselines; empty for a verdict without baselines."""
    names = ("baseline", "net return", "Sharpe ratio", "max drawdown", "alpha a year")
    lines = _narrow(names, BASELINE_COLUMNS, [each.cells for each in verdict.baselines])
    return [*lines, "In brackets the interval of 95 %.", ""] if lines else []


def rule_table(verdict: Verdict) -> list[str]:
    """Narrow table of the rule strategies at their defaults; empty for a verdict without."""
    names = ("rule", "Sharpe ratio", "max drawdown", "net return", "trades")
    lines = _narrow(names, RULE_COLUMNS, [each.cells for each in verdict.rules])
    return [*lines, RULE_NOTE, ""] if lines else []


def symbol_table(verdict: Verdict) -> list[str]:
    """Narrow table of the symbols of a pool; empty for one market."""
    names = ("symbol", "Sharpe ratio", "net return", "max drawdown", "contribution")
    rows = [(each.symbol, *each.cells) for each in verdict.by_symbol]
    lines = _narrow(names, ("symbol", *SYMBOL_COLUMNS), rows)
    if not lines:
        return []
    return [
        *lines,
        "The pool is judged as the equal-risk portfolio of its symbols; the contributions add up to the sum "
        "of the portfolio's returns.",
        "",
    ]


def _narrow(names: Sequence[str], columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Table of some columns for the page of a run, which is 800 pixels wide; empty without rows.

    Prefect breaks no line in a table and hides what is wider. The tear sheet has all columns.
    """
    places = [columns.index(name) for name in names]
    chosen = [[row[place] for place in places] for row in rows]
    return table(names, chosen) if chosen else []


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty line below."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
