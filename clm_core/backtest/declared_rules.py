"""Rule strategies beside a verdict, for information: every family at its defaults, on the same bars and under
the same terms. The defaults were fixed before any result was looked at.

A position is that of a version retrained with the family's defaults: signals of `models.strategies`, sized by
the families' own sizing. The gate reads none of the results.
"""

from dataclasses import dataclass

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, Metrics
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars
from clm_core.models.sizing import size_positions
from clm_core.models.strategies.families import RULES
from clm_core.models.strategies.rules import SIZING, RuleParams


@dataclass(frozen=True, eq=False)
class DeclaredRule:
    """Backtest and metrics of a family at its defaults."""

    family: RuleFamily
    params: RuleParams
    result: Backtest
    metrics: Metrics


def run_declared_rules(market: MarketTerms, bars: Bars, rows: slice) -> tuple[DeclaredRule, ...]:
    """Backtest every family at its defaults on some rows, starting flat.

    Args:
        market: terms of the version's own backtest.
        bars: all bars known, n_bars long; those before `rows` are look-back.
        rows: rows to trade, the out-of-sample rows of the version.
    """
    unseen = bars[rows]
    rules = []
    for family, rule in RULES.items():
        params = rule.defaults
        positions = size_positions(bars, rule.positions(params, bars), SIZING)
        result = market.backtest(unseen, positions[rows])
        rules.append(DeclaredRule(family, params, result, summarise(result, unseen.periods_per_year)))
    return tuple(rules)
