"""Verdicts as tables on the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from clm_core.domain.evaluations import Check, Verdict

TONES = {"pass": "green", "inconclusive": "yellow", "fail": "red"}
"""Colour of each `Decision`, by the value: the enumerations come with pydantic, which help does not load."""
COLOURS = {"met": "green", "missed": "red", "carried": "yellow", "information": "dim"}
"""Colour of each `CheckStatus`."""
MARKS = {"met": "✓", "missed": "✗", "carried": "✗"}


def colored_decision(verdict: "Verdict") -> str:
    return f"[{TONES[verdict.decision]}]{verdict.decision.value.upper()}[/]"


def colored_headline(verdict: "Verdict") -> str:
    """Decision and count of the checks."""
    return f"[{TONES[verdict.decision]}]{verdict.headline}[/]"


def marked_estimate(check: "Check") -> str:
    """Value with interval and mark, without note, for a table with a column a model."""
    return f"{check.estimate} [{COLOURS[check.status]}]{MARKS.get(check.status, ' ')}[/]"


def verdict_tables(verdict: "Verdict") -> "list[Table]":
    """Checks, folds, symbols of a pool, baselines and rules; no table that the verdict has no rows for."""
    tables = (check_table, folds_table, symbols_table, baseline_table, rule_table)
    return [table for table in (make(verdict) for make in tables) if table.row_count]


def check_table(verdict: "Verdict") -> "Table":
    """All checks of a verdict."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import CHECK_COLUMNS

    table = Table(*CHECK_COLUMNS, box=SIMPLE_HEAVY)
    for check in verdict.checks:
        label, measured, required, outcome = check.cells
        table.add_row(label, measured, required, f"[{COLOURS[check.status]}]{outcome}[/]")
    return table


def symbols_table(verdict: "Verdict") -> "Table":
    """Results of each symbol of a pool."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import SYMBOL_COLUMNS

    table = Table(box=SIMPLE_HEAVY)
    table.add_column("symbol")
    for name in SYMBOL_COLUMNS:
        table.add_column(name, justify="right")
    for each in verdict.by_symbol:
        table.add_row(each.symbol, *each.cells)
    return table


def folds_table(verdict: "Verdict") -> "Table":
    """A row a fold of the walk-forward: fit, results and what is degenerate."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import FOLD_COLUMNS

    table = Table(*FOLD_COLUMNS, box=SIMPLE_HEAVY)
    for each in verdict.folds:
        table.add_row(*each.cells)
    return table


def baseline_table(verdict: "Verdict") -> "Table":
    """The baselines' results, and the version's return against each with an interval of 95 %."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import BASELINE_COLUMNS

    table = Table(*BASELINE_COLUMNS, box=SIMPLE_HEAVY)
    for each in verdict.baselines:
        table.add_row(*each.cells)
    return table


def rule_table(verdict: "Verdict") -> "Table":
    """The rule strategies at their defaults on the same bars."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import RULE_COLUMNS, RULE_NOTE

    table = Table(*RULE_COLUMNS, box=SIMPLE_HEAVY, caption=RULE_NOTE, caption_justify="left")
    for each in verdict.rules:
        table.add_row(*each.cells)
    return table
