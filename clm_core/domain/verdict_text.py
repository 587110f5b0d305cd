"""Verdicts as Markdown: the same checks, names, order and numbers for the run's page and for MLflow."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from clm_core.domain.evaluations import (
    BASELINE_COLUMNS,
    CHECK_COLUMNS,
    FOLD_COLUMNS,
    RULE_COLUMNS,
    RULE_NOTE,
    SYMBOL_COLUMNS,
    Verdict,
)

HISTORY = "### History"
"""Beginning of the part about changes of status in a description."""
MAX_DESCRIPTION = 5000
"""Limit of MLflow, characters."""
MAX_HISTORY = 1500
"""Most characters of the history in a description; the oldest entries are left out."""
_FORMER_TITLE = "### Verdict "
"""Beginning of the verdict in descriptions of earlier releases, below a sentence on the status."""
_TIME = re.compile(r"^- \d{4}-\d\d-\d\d \d\d:\d\d UTC, ")


def description(verdict: Verdict) -> str:
    """Headline, reasons and checks, for the description of a version in MLflow.

    Lists show the first words alone, so the verdict comes first and without markup.
    """
    reasons = [verdict.headline, "", *bullets(verdict)]
    whole = "\n".join([*reasons, *table(CHECK_COLUMNS, check_rows(verdict))]).strip()
    room = MAX_DESCRIPTION - MAX_HISTORY
    return whole if len(whole) <= room else "\n".join(reasons)[:room].strip()


def with_status(present: str, status: str, sentence: str, at: datetime) -> str:
    """The present description with a change of status added to the history at the end.

    The same change is added once, however often an interrupted promotion is finished. The note of a person
    above the history stays.
    """
    body, history = _parts(present)
    entry = f"{status}: {' '.join(sentence.split())}"
    if not history or _TIME.sub("", history[-1]) != entry:
        history = [*history, f"- {at:%Y-%m-%d %H:%M} UTC, {entry}"]
    while len(history) > 1 and sum(len(line) + 1 for line in history) > MAX_HISTORY:
        history = history[1:]
    history = [line[:MAX_HISTORY] for line in history]
    end = "\n".join([HISTORY, "", *history])
    body = body[: MAX_DESCRIPTION - len(end) - 2].strip()
    return f"{body}\n\n{end}" if body else end


def _parts(present: str) -> tuple[str, list[str]]:
    """Text above the history, and the entries of the history, oldest first."""
    body, title, history = present.partition(HISTORY)
    if title:
        return body.strip(), [line for line in history.splitlines() if line.startswith("- ")]
    sentence, title, verdict = present.partition(_FORMER_TITLE)
    if title:
        return verdict.strip(), [f"- {sentence.strip()}"] if sentence.strip() else []
    return present.strip(), []


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
