"""The rules by which a policy trades, bar by bar: compiled, the same while it learns and when it serves.

They are those of `backtest.engine` without stops and lots: the position named at a close is traded at the
next open, a target that stays does not rebalance, a flip closes first and is sized by what is left, every
fill pays slippage and fee, and a short that would take all the cash to buy back is ruined. `models` may not
lean on `backtest`, so the rules are written once more, without its record of trades; a test holds both to the
same equity.

A policy sees, as float32, the features of a bar, the position it wanted last (-1..1), and the return of its
open trade since the average entry, in units of `Play.unit` and cut at LARGEST.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.costs import Costs
from clm_core.market.bars import Bars, Floats

Singles = NDArray[np.float32]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST = 1e-9
"""Share of the equity it began with that is counted as nothing: below, an account is ruined."""
LARGEST = 5.0
"""Largest unrealised return that is seen, in units."""
OWN = 2
"""Values a policy sees of itself: its position and its unrealised return."""

CASH, UNITS, TARGET, ENTRY, EQUITY, PEAK, WORST = range(7)
"""Columns of a book: cash, units held, the position wanted last, the average price paid for what is open, the
equity, the highest equity so far, and the deepest log equity below its peak so far. Cash and equity are
shares of the first equity."""
BLANK = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])


class MarketArrays(NamedTuple):
    open: Floats
    high: Floats
    close: Floats

    @classmethod
    def of(cls, bars: Bars) -> "MarketArrays":
        return cls(*(np.ascontiguousarray(prices) for prices in (bars.open, bars.high, bars.close)))


class Play(NamedTuple):
    """How it is traded and scored."""

    fee: float
    """Fraction of the traded value."""
    slippage: float
    """Fraction of the price."""
    step: float
    """Wanted positions are rounded to whole multiples of this."""
    unit: float
    """Unrealised return that is seen as 1."""
    margin: float = 0.0
    """By how much more another of three positions must be worth than the one held."""
    drawdown_penalty: float = 0.0
    """Times the deepest drawdown of the log equity of an episode, taken off its rewards where it deepens."""
    reward_unit: float = 1.0
    """Log return that is rewarded with 1."""

    @classmethod
    def at(cls, costs: Costs, **other: float) -> "Play":
        return cls(fee=costs.fee_bps / 10_000, slippage=costs.slippage_bps / 10_000, **other)


class Net(NamedTuple):
    """Two hidden layers of rectified units, fully connected; matrices of shape (inputs, outputs)."""

    weight_1: Floats
    bias_1: Floats
    weight_2: Floats
    bias_2: Floats
    weight_3: Floats
    bias_3: Floats


_inlined = njit(error_model="numpy", inline="always")
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_inlined
def _fill(book: Floats, quantity: float, price: float, play: Play) -> None:
    """Buy, or sell if negative, that many units."""
    paid = price * (1.0 + np.sign(quantity) * play.slippage)
    held, after = abs(book[UNITS]), abs(book[UNITS] + quantity)
    if after > held:
        book[ENTRY] = (book[ENTRY] * held + paid * abs(quantity)) / after
    book[CASH] -= quantity * paid + abs(quantity) * paid * play.fee
    book[UNITS] += quantity


@_inlined
def _rebalance(book: Floats, wanted: float, price: float, play: Play) -> None:
    book[TARGET] = wanted
    if book[UNITS] * wanted < 0.0:
        _fill(book, -book[UNITS], price, play)
    equity = book[CASH] + book[UNITS] * price
    units = wanted * equity / (price * (1.0 + play.slippage) * (1.0 + play.fee))
    if units != book[UNITS]:
        _fill(book, units - book[UNITS], price, play)


@_inlined
def _ruined(book: Floats, price: float, play: Play) -> bool:
    """Whether buying a short back at this price takes all the cash."""
    cost = (1.0 + play.slippage) * (1.0 + play.fee)
    return bool(book[UNITS] < 0.0 and price >= book[CASH] / (-book[UNITS] * cost))


@_inlined
def _trade(book: Floats, wanted: float, bar: int, last: bool, market: MarketArrays, play: Play) -> None:
    """Play one bar, to its close; after the last one nothing is open."""
    ruined = _ruined(book, market.open[bar], play)
    if not ruined:
        if wanted != book[TARGET]:
            _rebalance(book, wanted, market.open[bar], play)
        ruined = _ruined(book, market.high[bar], play)
    if ruined:
        book[CASH] = book[UNITS] = book[TARGET] = 0.0
    if last and book[UNITS] != 0.0:
        _fill(book, -book[UNITS], market.close[bar], play)
        book[TARGET] = 0.0
    book[EQUITY] = max(book[CASH] + book[UNITS] * market.close[bar], LEAST)


@_inlined
def _reward(book: Floats, before: float, play: Play) -> float:
    book[PEAK] = max(book[PEAK], book[EQUITY])
    deepened = max(0.0, np.log(book[PEAK] / book[EQUITY]) - book[WORST])
    book[WORST] += deepened
    return float((np.log(book[EQUITY] / before) - play.drawdown_penalty * deepened) / play.reward_unit)


@_inlined
def _rounded(action: float, step: float) -> float:
    # adding 0.0 turns -0.0 into 0.0
    return float(min(1.0, max(-1.0, np.rint(action / step) * step)) + 0.0)


@_inlined
def _unrealised(book: Floats, close: float, play: Play) -> float:
    if book[UNITS] == 0.0:
        return 0.0
    gain = np.sign(book[UNITS]) * (close / book[ENTRY] - 1.0) / play.unit
    return float(min(LARGEST, max(-LARGEST, gain)))


@_inlined
def _look(seen: Singles, features: Singles, bar: int, book: Floats, market: MarketArrays, play: Play) -> None:
    """Write what a policy sees at the close of a bar."""
    own = features.shape[1]
    seen[:own] = features[bar]
    seen[own] = book[TARGET]
    seen[own + 1] = _unrealised(book, market.close[bar], play)


@_compiled
def look(
    seen: Singles, features: Singles, rows: Rows, books: Floats, market: MarketArrays, play: Play
) -> None:
    """Write what each of n players sees, into shape (n, n_features + OWN)."""
    for player in range(len(rows)):
        _look(seen[player], features, rows[player], books[player], market, play)


@_compiled
def play_bar(
    actions: Floats, rows: Rows, last: Flags, books: Floats, market: MarketArrays, play: Play, rewards: Floats
) -> None:
    """Let each of n players trade the bar after its row, and write what it earned.

    Args:
        actions: wanted positions, not yet rounded, shape (n,).
        rows: the bar each has just seen close; one further afterwards.
        last: whether the bar ends the episode.
        books: one a player, shape (n, 7); changed.
    """
    for player in range(len(rows)):
        book = books[player]
        before = book[EQUITY]
        rows[player] += 1
        _trade(book, _rounded(actions[player], play.step), rows[player], last[player], market, play)
        rewards[player] = _reward(book, before, play)


@_inlined
def _layer(into: Floats, inputs: Floats, weight: Floats, bias: Floats) -> None:
    into[:] = bias
    for i in range(len(inputs)):
        for j in range(len(into)):
            into[j] += inputs[i] * weight[i, j]


@_inlined
def _rectify(values: Floats) -> None:
    for i in range(len(values)):
        values[i] = max(values[i], 0.0)


@_inlined
def _chosen(answers: Floats, held: float, margin: float) -> float:
    """The position a network's answers mean: one is the position itself, three are the values of holding -1,
    0 and 1, and what is held is kept unless another is worth more by the margin."""
    if len(answers) == 1:
        return float(answers[0])
    best, own = int(np.argmax(answers)), int(held) + 1
    return float((best if answers[best] > answers[own] + margin else own) - 1)


@_compiled
def roll_out(
    features: Singles, begins: Flags, plays: Flags, market: MarketArrays, play: Play, net: Net
) -> tuple[Floats, Floats]:
    """Positions wanted after each bar, and the log return of each bar for whoever follows them.

    Args:
        features: shape (n_bars, n_features).
        begins: rows before which the policy forgets: it holds nothing there as far as it knows.
        plays: rows on which it has a view; 0 elsewhere, where it forgets too.
    """
    n = len(features)
    positions, earned = np.zeros(n), np.zeros(n)
    book = BLANK.copy()
    seen = np.empty(features.shape[1] + OWN, np.float32)
    inputs = np.empty(len(seen))
    hidden_1, hidden_2 = np.empty(len(net.bias_1)), np.empty(len(net.bias_2))
    answers = np.empty(len(net.bias_3))
    for bar in range(n):
        if bar > 0 and plays[bar - 1]:
            before = book[EQUITY]
            # an episode's end closes what is open, as it did in training
            last = begins[bar] or not plays[bar]
            _trade(book, positions[bar - 1], bar, last, market, play)
            earned[bar] = np.log(book[EQUITY] / before)
        if begins[bar] or not plays[bar] or book[EQUITY] <= LEAST:
            book[:] = BLANK
        if not plays[bar]:
            continue
        _look(seen, features, bar, book, market, play)
        inputs[:] = seen
        _layer(hidden_1, inputs, net.weight_1, net.bias_1)
        _rectify(hidden_1)
        _layer(hidden_2, hidden_1, net.weight_2, net.bias_2)
        _rectify(hidden_2)
        _layer(answers, hidden_2, net.weight_3, net.bias_3)
        positions[bar] = _rounded(_chosen(answers, book[TARGET], play.margin), play.step)
    return positions, earned
