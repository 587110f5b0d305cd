"""Trading rules of a policy, bar by bar: compiled, the same in training and in production.

The rules are those of `backtest.engine` without stops, lots, stored payments and the band of rebalancing: a
position held into a bar first pays the constant costs of holding; the position chosen at a close is traded at
the next open, an unchanged target keeps its number of units (whatever the band of the version's execution: an
account of a policy lasts a span of `memory` bars, in which drift stays small), a flip first closes the open
position and is sized by the remaining cash, every fill pays slippage and fee, and a position that would take
all the cash to close is ruined. `models` must not import `backtest`, so the rules are repeated here without
the record of trades; a test holds both to the same equity.

An observation is float32: the features of a bar, the last target position (-1..1), and the return of the open
trade since the average entry, in units of `TradingRules.unit` and clipped at MAX_UNREALISED.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import holding_rates
from clm_core.market.rolling import read_only

Float32Array = NDArray[np.float32]
RowIndices = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MIN_EQUITY = 1e-9
"""Fraction of the initial equity at or below which an account is ruined."""
MAX_UNREALISED = 5.0
"""Largest unrealised return in an observation, in units."""
ACCOUNT_INPUTS = 2
"""Values about the account in an observation: target position and unrealised return."""

CASH, UNITS, TARGET, ENTRY, EQUITY, PEAK, WORST = range(7)
"""Columns of an account: cash, units held, last target position, average price paid for the open trade,
equity, highest equity so far, and deepest log equity below the peak so far. Cash and equity are fractions of
the initial equity."""
FREE_HOLDING = HoldingCosts()
NEW_ACCOUNT = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])


class MarketArrays(NamedTuple):
    """Prices and costs of holding of the bars, each of shape (n_bars,)."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    long_rate: Floats
    """Cost of holding a long into each bar, a fraction of its value at the open."""
    short_rate: Floats
    """Cost of holding a short into each bar."""

    @classmethod
    def of(cls, bars: Bars, holding: HoldingCosts = FREE_HOLDING) -> "MarketArrays":
        rates = holding_rates(bars, holding)
        long_rate = np.zeros(len(bars)) if rates is None else rates.long
        short_rate = np.zeros(len(bars)) if rates is None else rates.short
        arrays = (bars.open, bars.high, bars.low, bars.close, long_rate, short_rate)
        return cls(*(read_only(np.ascontiguousarray(array)) for array in arrays))


class TradingRules(NamedTuple):
    """Costs, rounding and rewards."""

    fee: float
    """Fraction of the traded value."""
    slippage: float
    """Fraction of the price."""
    step: float
    """Step to whose whole multiples target positions are rounded."""
    unit: float
    """Unrealised return that an observation shows as 1."""
    margin: float = 0.0
    """Extra value required of another of three positions to replace the current position."""
    drawdown_penalty: float = 0.0
    """Multiple of the deepest drawdown of an episode's log equity, subtracted from rewards where the drawdown
    deepens."""
    reward_unit: float = 1.0
    """Log return with a reward of 1."""
    lowest: float = -1.0
    """Lowest target position: 0 in a long-only market."""

    @classmethod
    def at(cls, costs: Costs, **other: float) -> "TradingRules":
        return cls(fee=costs.fee_bps / 10_000, slippage=costs.slippage_bps / 10_000, **other)


class PolicyNetwork(NamedTuple):
    """Two fully connected hidden layers of rectified units; matrices of shape (inputs, outputs)."""

    weight_1: Floats
    bias_1: Floats
    weight_2: Floats
    bias_2: Floats
    weight_3: Floats
    bias_3: Floats


_inlined = njit(error_model="numpy", inline="always")
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_inlined
def _fill(account: Floats, quantity: float, price: float, rules: TradingRules) -> None:
    """Buy a number of units, or sell units if negative."""
    paid = price * (1.0 + np.sign(quantity) * rules.slippage)
    before = abs(account[UNITS])
    after = abs(account[UNITS] + quantity)
    if after > before:
        account[ENTRY] = (account[ENTRY] * before + paid * abs(quantity)) / after
    account[CASH] -= quantity * paid + abs(quantity) * paid * rules.fee
    account[UNITS] += quantity


@_inlined
def _rebalance(account: Floats, target: float, price: float, rules: TradingRules) -> None:
    account[TARGET] = target
    if account[UNITS] * target < 0.0:
        _fill(account, -account[UNITS], price, rules)
    equity = account[CASH] + account[UNITS] * price
    units = target * equity / (price * (1.0 + rules.slippage) * (1.0 + rules.fee))
    if units != account[UNITS]:
        _fill(account, units - account[UNITS], price, rules)


@_inlined
def _charge(account: Floats, bar: int, market: MarketArrays) -> None:
    """Pay the costs of holding the position into a bar, at most the equity at the open."""
    price = market.open[bar]
    rate = market.long_rate[bar] if account[UNITS] > 0.0 else market.short_rate[bar]
    if account[UNITS] != 0.0 and rate != 0.0:
        equity = max(account[CASH] + account[UNITS] * price, 0.0)
        account[CASH] -= min(abs(account[UNITS]) * price * rate, equity)


@_inlined
def _ruined(account: Floats, high: float, low: float, rules: TradingRules) -> bool:
    """True if a price reached takes all the cash to buy a short back, or, sold at, leaves a long no cash."""
    if account[UNITS] < 0.0:
        cost = (1.0 + rules.slippage) * (1.0 + rules.fee)
        return bool(high >= account[CASH] / (-account[UNITS] * cost))
    proceeds = account[UNITS] * (1.0 - rules.slippage) * (1.0 - rules.fee)
    return bool(account[UNITS] > 0.0 and low * proceeds <= -account[CASH])


@_inlined
def _trade(
    account: Floats, target: float, bar: int, last: bool, market: MarketArrays, rules: TradingRules
) -> None:
    """Trade a bar up to its close; the last bar closes any open position."""
    _charge(account, bar, market)
    ruined = _ruined(account, market.open[bar], market.open[bar], rules)
    if not ruined:
        if target != account[TARGET]:
            _rebalance(account, target, market.open[bar], rules)
        ruined = _ruined(account, market.high[bar], market.low[bar], rules)
    if ruined:
        account[CASH] = account[UNITS] = account[TARGET] = 0.0
    if last and account[UNITS] != 0.0:
        _fill(account, -account[UNITS], market.close[bar], rules)
        account[TARGET] = 0.0
    account[EQUITY] = max(account[CASH] + account[UNITS] * market.close[bar], MIN_EQUITY)


@_inlined
def _reward(account: Floats, equity_before: float, rules: TradingRules) -> float:
    account[PEAK] = max(account[PEAK], account[EQUITY])
    deepened = max(0.0, np.log(account[PEAK] / account[EQUITY]) - account[WORST])
    account[WORST] += deepened
    log_return = np.log(account[EQUITY] / equity_before)
    return float((log_return - rules.drawdown_penalty * deepened) / rules.reward_unit)


@_inlined
def _rounded(target: float, rules: TradingRules) -> float:
    # adding 0.0 turns -0.0 into 0.0
    return float(min(1.0, max(rules.lowest, np.rint(target / rules.step) * rules.step)) + 0.0)


@_inlined
def _unrealised(account: Floats, close: float, rules: TradingRules) -> float:
    if account[UNITS] == 0.0:
        return 0.0
    gain = np.sign(account[UNITS]) * (close / account[ENTRY] - 1.0) / rules.unit
    return float(min(MAX_UNREALISED, max(-MAX_UNREALISED, gain)))


@_inlined
def _observe(
    observation: Float32Array,
    features: Float32Array,
    bar: int,
    account: Floats,
    market: MarketArrays,
    rules: TradingRules,
) -> None:
    """Write the observation at the close of a bar."""
    n_features = features.shape[1]
    for feature in range(n_features):
        observation[feature] = features[bar, feature]
    observation[n_features] = account[TARGET]
    observation[n_features + 1] = _unrealised(account, market.close[bar], rules)


@_compiled
def observe(
    observations: Float32Array,
    features: Float32Array,
    rows: RowIndices,
    accounts: Floats,
    market: MarketArrays,
    rules: TradingRules,
) -> None:
    """Write the observations of n episodes, shape (n, n_features + ACCOUNT_INPUTS)."""
    for episode in range(len(rows)):
        _observe(observations[episode], features, rows[episode], accounts[episode], market, rules)


@_compiled
def trade_bar(
    targets: Floats,
    rows: RowIndices,
    last: BoolArray,
    accounts: Floats,
    market: MarketArrays,
    rules: TradingRules,
    rewards: Floats,
) -> None:
    """Trade the next bar of n episodes, and write the rewards.

    Args:
        targets: target positions, not yet rounded, shape (n,).
        rows: bar at whose close each episode stands; advanced by a bar.
        last: True where the next bar ends the episode.
        accounts: account of each episode, shape (n, 7); changed.
        rewards: rewards of the bar, shape (n,); written.
    """
    for episode in range(len(rows)):
        account = accounts[episode]
        equity_before = account[EQUITY]
        rows[episode] += 1
        target = _rounded(targets[episode], rules)
        _trade(account, target, rows[episode], last[episode], market, rules)
        rewards[episode] = _reward(account, equity_before, rules)


@_inlined
def _layer(outputs: Floats, inputs: Floats, weight: Floats, bias: Floats) -> None:
    for j in range(len(outputs)):
        outputs[j] = bias[j]
    for i in range(len(inputs)):
        for j in range(len(outputs)):
            outputs[j] += inputs[i] * weight[i, j]


@_inlined
def _rectify(values: Floats) -> None:
    for i in range(len(values)):
        values[i] = max(values[i], 0.0)


@_inlined
def _answer(
    outputs: Floats, hidden_1: Floats, hidden_2: Floats, inputs: Floats, network: PolicyNetwork
) -> None:
    _layer(hidden_1, inputs, network.weight_1, network.bias_1)
    _rectify(hidden_1)
    _layer(hidden_2, hidden_1, network.weight_2, network.bias_2)
    _rectify(hidden_2)
    _layer(outputs, hidden_2, network.weight_3, network.bias_3)


@_inlined
def _target(outputs: Floats, current: float, margin: float) -> float:
    """Target position of a network's outputs, not yet rounded.

    A single output is the position itself. Three outputs are the values of the positions -1, 0 and 1; the
    current position stays unless another position is worth more by the margin, and if short and long are
    worth the same.
    """
    if len(outputs) == 1:
        return float(outputs[0])
    own = int(current) + 1
    best = 0
    for other in range(1, len(outputs)):
        if outputs[other] > outputs[best]:
            best = other
    if outputs[0] == outputs[2] == outputs[best]:
        best = own
    return float((best if outputs[best] > outputs[own] + margin else own) - 1)


@_compiled
def roll_out(
    features: Float32Array,
    starts: BoolArray,
    active: BoolArray,
    market: MarketArrays,
    rules: TradingRules,
    network: PolicyNetwork,
) -> tuple[Floats, Floats]:
    """Target position after each bar, and the log return per bar of following the targets.

    Args:
        features: normalised features, shape (n_bars, n_features).
        starts: rows with a new account, from which the policy has no position and no memory.
        active: rows in which the policy chooses a position; in other rows the position is 0 and the account
            starts anew.
    """
    n = len(features)
    positions = np.zeros(n)
    log_returns = np.zeros(n)
    account = NEW_ACCOUNT.copy()
    observation = np.empty(features.shape[1] + ACCOUNT_INPUTS, np.float32)
    inputs = np.empty(len(observation))
    hidden_1 = np.empty(len(network.bias_1))
    hidden_2 = np.empty(len(network.bias_2))
    outputs = np.empty(len(network.bias_3))
    for bar in range(n):
        if bar > 0 and active[bar - 1]:
            equity_before = account[EQUITY]
            # the end of an episode closes the open position, as in training
            last = starts[bar] or not active[bar]
            _trade(account, positions[bar - 1], bar, last, market, rules)
            log_returns[bar] = np.log(account[EQUITY] / equity_before)
        if starts[bar] or not active[bar] or account[EQUITY] <= MIN_EQUITY:
            for column in range(len(account)):
                account[column] = NEW_ACCOUNT[column]
        if not active[bar]:
            continue
        _observe(observation, features, bar, account, market, rules)
        for place in range(len(inputs)):
            inputs[place] = observation[place]
        _answer(outputs, hidden_1, hidden_2, inputs, network)
        positions[bar] = _rounded(_target(outputs, account[TARGET], rules.margin), rules)
    return positions, log_returns


@_compiled
def answers(observations: Floats, rules: TradingRules, network: PolicyNetwork) -> tuple[Floats, Floats]:
    """Target position and outputs of the network for each observation, shapes (n,) and (n, n_outputs).

    Args:
        observations: shape (n, n_features + ACCOUNT_INPUTS); the first value about the account is the current
            position.
    """
    n, size = observations.shape
    targets = np.empty(n)
    outputs = np.empty((n, len(network.bias_3)))
    hidden_1 = np.empty(len(network.bias_1))
    hidden_2 = np.empty(len(network.bias_2))
    for row in range(n):
        _answer(outputs[row], hidden_1, hidden_2, observations[row], network)
        current = observations[row, size - ACCOUNT_INPUTS]
        targets[row] = _rounded(_target(outputs[row], current, rules.margin), rules)
    return targets, outputs
