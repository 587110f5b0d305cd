"""Terms of trading in a market, resolved from settings, defaults by market and stored payments.

The first of the following that names a value decides: `[markets.SYMBOL.costs]`, `[costs]` (a variable before
the file), the default. A home made by release 0.1.0 keeps the defaults of that release.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import (
    COST_FIELDS,
    CostSources,
    GeneralCostSettings,
    MarketSettings,
    TradingTerms,
)
from clm_core.market.timeframes import Calendar

if TYPE_CHECKING:
    from clm_core.market.carry import Carry

NAMES = {"fee_bps": "fee", "slippage_bps": "slippage"}
OLD_COSTS = Costs(fee_bps=5.0, slippage_bps=2.0)
"""Costs of every market by default in release 0.1.0."""
PERPETUAL = re.compile(r"\.P(-[A-Z0-9]+)?$")
"""End of the canonical symbol of a perpetual: BTCUSDT.P, BTCUSD.P-BTC."""
PERPETUAL_FUNDING_BPS = 1.0
"""Default funding rate per 8 h: the interest component of the usual formula, 0.01 %."""


@dataclass(frozen=True)
class CostDefault:
    """Default costs of a kind of market."""

    costs: Costs
    kind: str
    """Kind of market, for people: "the default of 24x7 markets"."""


_CURRENCY = (
    "AUD|CAD|CHF|CNH|CZK|DKK|EUR|GBP|HKD|HUF|ILS|INR|JPY|KRW|MXN|NOK|NZD|PLN|SEK|SGD|THB|TRY|USD|ZAR"
    "|XAG|XAU|XPD|XPT"
)
FOREX_PAIR = re.compile(rf"(?:{_CURRENCY}){{2}}(?:\.FX)?")
"""Canonical symbol of two currencies or metals that forex brokers quote (ISO 4217): EURUSD, XAUUSD."""

FOREX = CostDefault(Costs(fee_bps=0.5, slippage_bps=0.2), "default of forex and metals")
"""Half a spread of about 1 pip on a major pair, and slippage on liquid quotes."""
EXCHANGE = CostDefault(Costs(fee_bps=1.0, slippage_bps=1.0), "default of markets with sessions")
"""Commission of a large broker on a liquid share or fund, and half the spread."""
CRYPTO = CostDefault(Costs(fee_bps=5.0, slippage_bps=2.0), "default of 24x7 markets")
"""Taker fee of a large crypto exchange after the first discounts."""


def default_costs(symbol: str, calendar: str) -> CostDefault:
    """Default costs of a market by its symbol and calendar.

    Args:
        symbol: canonical symbol; a pair of currencies or metals is forex on any calendar.
    """
    if FOREX_PAIR.fullmatch(symbol) or calendar == "24x5":
        return FOREX
    return CRYPTO if calendar == "24x7" else EXCHANGE


def keeps_old_costs(costs: GeneralCostSettings, is_old_home: bool) -> bool:
    """True if the costs of release 0.1.0 are the defaults of every market."""
    return is_old_home if costs.defaults is None else costs.defaults == "0.1.0"


def trading_terms(
    symbol: str,
    calendar: Calendar | str,
    market: MarketSettings,
    costs: CostSources,
    execution: Execution,
    carry: "Carry",
    is_old_home: bool,
) -> TradingTerms:
    """Terms in force for a market.

    Args:
        market: settings of the market; the defaults where the settings do not name the market.
        costs: general costs of the settings.
        carry: stored payments of the market.
        is_old_home: True for a home made by release 0.1.0.
    """
    default = default_costs(normalise_symbol(symbol), str(calendar))
    if keeps_old_costs(costs.general, is_old_home):
        default = CostDefault(OLD_COSTS, "kept from release 0.1.0, which made the home")
    resolved = [_Resolved.of(costs, symbol, market, field, default) for field in COST_FIELDS]
    values = {each.field: each.value for each in resolved}
    origins = {each.field: each.origin for each in resolved}
    funding = market.funding_bps_per_8h
    if funding is None:
        funding = PERPETUAL_FUNDING_BPS if PERPETUAL.search(symbol) else 0.0
    origins["funding_bps_per_8h"] = _funding_origin(symbol, market, carry, funding)
    remarks = (each.remark for each in resolved if each.remark is not None)
    return TradingTerms(
        costs=Costs(**values),
        holding=HoldingCosts(funding_bps_per_8h=funding, borrow_bps_per_year=market.borrow_bps_per_year),
        execution=Execution(**execution.model_dump()),
        long_only=market.long_only,
        adjusted=market.adjusted,
        funding_hash=None if carry.funding is None else carry.funding.content_hash,
        dividends_hash=None if carry.dividends is None else carry.dividends.content_hash,
        origins=origins,
        remarks=(*remarks, *_market_remarks(symbol, market, costs)),
    )


@dataclass(frozen=True)
class _Resolved:
    """A cost in force, with its origin, and the remark to make about a variable."""

    field: str
    value: float
    origin: str
    remark: str | None = None

    @classmethod
    def of(
        cls, costs: CostSources, symbol: str, market: MarketSettings, field: str, default: CostDefault
    ) -> "_Resolved":
        own = getattr(market.costs, field)
        general = getattr(costs.general, field)
        variable = costs.variables.get(field)
        if own is not None:
            alone = cls(field, own, f"[markets.{symbol}.costs]")
        elif variable is None and general is not None:
            alone = cls(field, general, "[costs]")
        elif variable is not None and (filed := getattr(costs.file, field)) is not None:
            alone = cls(field, filed, f"[costs] in {costs.file_name}")
        else:
            alone = cls(field, getattr(default.costs, field), default.kind)
        if variable is None or alone.value == general:
            return alone
        name = NAMES[field]
        known = f"{alone.value:g} bps ({alone.origin})"
        if own is not None:
            remark = f"{variable} = {general:g} is not used: {symbol} has a {name} of its own, {known}."
            return cls(field, own, alone.origin, remark)
        remark = (
            f"The {name} of {general:g} bps comes from {variable}; without the variable {known}, at which a "
            "promotion judges the version."
        )
        return cls(field, general, variable, remark)


def _funding_origin(symbol: str, market: MarketSettings, carry: "Carry", funding: float) -> str:
    if carry.funding is not None:
        return "stored funding rates"
    if market.funding_bps_per_8h is not None:
        return f"[markets.{symbol}]"
    return "default of perpetuals" if funding else "none: not a perpetual"


def _market_remarks(symbol: str, market: MarketSettings, costs: CostSources) -> Iterator[str]:
    if market.long_only:
        yield f"Long only: targets below 0 are traded as 0 ([markets.{symbol}] long_only)."
    if costs.markets_variable and market != MarketSettings():
        yield (
            f"The terms of {symbol} come from CLM_MARKETS, not from the settings file alone, by which a "
            "promotion judges the version."
        )
