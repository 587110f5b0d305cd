"""The rule strategies by family."""

from collections.abc import Mapping

from clm_core.domain.vocabulary import RuleFamily
from clm_core.models.strategies import breakout, ma_cross, mean_reversion, momentum, volatility_trend
from clm_core.models.strategies.rules import Rule

RULES: Mapping[RuleFamily, Rule] = {
    module.RULE.family: module.RULE
    for module in (momentum, breakout, mean_reversion, ma_cross, volatility_trend)
}
"""Rules in the order of the vocabulary."""
