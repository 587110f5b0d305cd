"""Terms of trading in a market, and the terms recorded with an evaluation."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.costs import Costs, HoldingCosts, MarketCosts
from clm_core.domain.errors import InvalidSymbol
from clm_core.domain.execution import Execution
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.walk_forward import WalkForwardPlan

COST_FIELDS = ("fee_bps", "slippage_bps")


class CostSettings(BaseModel):
    """Costs on each side of a trade; None: not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fee_bps: float | None = Field(default=None, ge=0, lt=10_000, allow_inf_nan=False)
    """Exchange fee, basis points."""
    slippage_bps: float | None = Field(default=None, ge=0, lt=10_000, allow_inf_nan=False)
    """Difference between an order's price and the worse fill, basis points."""


class GeneralCostSettings(CostSettings):
    """Costs of every market without costs of its own."""

    defaults: Literal["market", "0.1.0"] | None = None
    """Defaults of costs that nothing else names: by the kind of market, or those of release 0.1.0 (5 + 2 bps)
    for every market. None: those of the home, which are by market unless release 0.1.0 made the home."""


class MarketSettings(BaseModel):
    """Costs and rules of a market: `[markets.EURUSD]`, `[markets.EURUSD.costs]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    costs: CostSettings = CostSettings()
    """Costs of the market, before those under [costs]."""
    long_only: bool = False
    """True for a market without short positions: targets below 0 are traded as 0."""
    funding_bps_per_8h: float | None = Field(default=None, gt=-1_000, lt=1_000, allow_inf_nan=False)
    """Constant funding rate at 00, 08 and 16 UTC, where no rate is stored; longs pay, shorts receive.
    None: 1 for a perpetual (a symbol ending in .P), 0 for others."""
    borrow_bps_per_year: float = Field(default=0.0, ge=0, lt=100_000, allow_inf_nan=False)
    """Cost of borrowing the units sold short."""
    adjusted: bool = False
    """True for prices adjusted for dividends: stored dividends are not paid a second time."""


def by_symbol(markets: Mapping[str, Any]) -> dict[str, Any]:
    """Markets by canonical symbol: TOML reads [markets.BTCUSDT.P] as a table P in a table BTCUSDT.

    Raises:
        ValueError: a name cannot be a symbol, or two names are the same market.
    """
    joined = dict[str, Any]()
    for name, values in _by_whole_name(markets):
        try:
            symbol = normalise_symbol(name)
        except InvalidSymbol as error:
            raise ValueError(str(error)) from error
        if symbol in joined:
            raise ValueError(f"{name} is listed twice, as {symbol} at last: keep one table")
        joined[symbol] = values
    return joined


def _by_whole_name(markets: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, values in markets.items():
        if not isinstance(values, Mapping):
            yield name, values
            continue
        fields = MarketSettings.model_fields
        nested = {
            part: inner for part, inner in values.items() if part not in fields and isinstance(inner, Mapping)
        }
        own = {part: value for part, value in values.items() if part not in nested}
        if own or not nested:
            yield name, own
        yield from _by_whole_name({f"{name}.{part}": inner for part, inner in nested.items()})


@dataclass(frozen=True)
class CostSources:
    """General costs of the settings, with the variable or the file that names each."""

    general: GeneralCostSettings
    """Costs in force for markets without costs of their own; variables come before the file."""
    variables: Mapping[str, str]
    """Name of the variable that set a cost, by field."""
    file: CostSettings
    """Costs under [costs] in the settings file alone."""
    file_name: str
    markets_variable: bool
    """True if the variable CLM_MARKETS is set."""


class TradingTerms(BaseModel):
    """Costs and rules under which positions of a market are traded."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    costs: Costs = Costs()
    holding: HoldingCosts = HoldingCosts()
    execution: Execution = Execution()
    long_only: bool = False
    """True for a market without short positions: targets below 0 are traded as 0."""
    adjusted: bool = False
    """True for prices adjusted for dividends: stored dividends are not paid a second time."""
    funding_hash: str | None = None
    """Content hash of the stored funding rates in force; None without stored rates."""
    dividends_hash: str | None = None
    """Content hash of the stored dividends in force; None without stored dividends."""
    origins: dict[str, str] = {}
    """Origin of each value by name: "fee_bps" to "[markets.EURUSD.costs] in clm.toml"."""
    remarks: tuple[str, ...] = ()
    """Sentences that a verdict under the terms repeats as warnings."""

    @property
    def market_costs(self) -> MarketCosts:
        """Constant costs of the market, as a training sees them."""
        return MarketCosts(**self.costs.model_dump(), holding=self.holding, long_only=self.long_only)


class EvaluationTerms(BaseModel):
    """All terms of an evaluation: equal terms and equal positions on equal bars give equal results."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    costs: Costs
    holding: HoldingCosts
    execution: Execution
    long_only: bool
    adjusted: bool
    funding_hash: str | None
    """Content hash of the funding rates charged; None for the constant alone."""
    dividends_hash: str | None
    """Content hash of the dividends paid; None for none."""
    walk_forward: WalkForwardPlan
    """Plan of the walk-forward, with the number of seeds that were run."""
    calendar: str
    gap_rules: int
    """Rules by which missing bars are told apart as closures and outages."""
    members: dict[str, str] = {}
    """Digest of the terms of each member of a pool, by symbol; the costs above are then the highest of the
    members', under which the pool was trained. Empty for one market."""

    @classmethod
    def of(cls, terms: TradingTerms, plan: WalkForwardPlan, calendar: str, gap_rules: int) -> Self:
        shared = TradingTerms.model_fields.keys() & cls.model_fields.keys()
        values = {name: getattr(terms, name) for name in shared}
        return cls(**values, walk_forward=plan, calendar=calendar, gap_rules=gap_rules)

    @property
    def digest(self) -> str:
        """SHA-256 of the terms as JSON with sorted keys, hexadecimal."""
        values = self.model_dump(mode="json")
        if self.execution.rebalance_band is None:
            # terms with fixed units keep the digest that they had before bands existed
            del values["execution"]["rebalance_band"]
        if not self.members:
            # terms of one market keep the digest that they had before there were pools
            del values["members"]
        values["walk_forward"] = self.walk_forward.recorded()
        facts = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def market_costs(self) -> MarketCosts:
        """Constant costs of the market, as the training of the version saw them."""
        return MarketCosts(**self.costs.model_dump(), holding=self.holding, long_only=self.long_only)


def cost_lines(terms: TradingTerms | EvaluationTerms) -> list[tuple[str, str]]:
    """Name and formatted value of each cost in force, for people."""
    lines = [
        ("fee", f"{terms.costs.fee_bps:g} bps per side"),
        ("slippage", f"{terms.costs.slippage_bps:g} bps per side"),
        *_holding_lines(terms),
    ]
    return [*lines, ("positions", "long only: shorts are traded as 0")] if terms.long_only else lines


def cost_sentence(terms: TradingTerms | EvaluationTerms) -> str:
    """Costs as a clause: "5 bps of fees and 2 bps of slippage on each side, funding 1 bps per 8 h"."""
    holding = "".join(f", {name} {value}" for name, value in _holding_lines(terms))
    short = "; long only" if terms.long_only else ""
    costs = terms.costs
    traded = f"{costs.fee_bps:g} bps of fees and {costs.slippage_bps:g} bps of slippage on each side"
    return f"{traded}{holding}{short}"


def _holding_lines(terms: TradingTerms | EvaluationTerms) -> list[tuple[str, str]]:
    lines = []
    constant = f"{terms.holding.funding_bps_per_8h:g} bps per 8 h"
    if terms.funding_hash is not None:
        rest = f", else {constant}" if terms.holding.funding_bps_per_8h else ""
        lines.append(("funding", f"stored rates {terms.funding_hash[:8]}{rest}"))
    elif terms.holding.funding_bps_per_8h:
        lines.append(("funding", constant))
    if terms.holding.borrow_bps_per_year:
        lines.append(("borrow", f"{terms.holding.borrow_bps_per_year:g} bps per year of shorts"))
    if terms.dividends_hash is not None and not terms.adjusted:
        lines.append(("dividends", f"stored payments {terms.dividends_hash[:8]}"))
    return lines
