"""Costs of holding as data of the market: funding rates of perpetuals, dividends, and the rate of each bar.

Payments fall on moments. A position held into a bar pays for every moment after the open of the bar before,
up to and including the open of the bar itself: hourly bars pay the funding of 08:00 at the open of 08:00,
daily bars the funding of 08:00, 16:00 and 00:00 at the open of the next day, and the first bar after a
closure pays for the whole closure.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.costs import HoldingCosts
from clm_core.market.bars import Bars, Floats

Times = NDArray[np.int64]
"""Nanoseconds since 1970-01-01 UTC."""

_HOUR = 3_600_000_000_000
FUNDING_INTERVAL = 8 * _HOUR
"""Interval of a constant funding rate, counted from midnight UTC, nanoseconds."""
_YEAR = 365 * 24 * _HOUR


@dataclass(frozen=True, eq=False)
class Payments:
    """Payments of a market in time order: funding rates, or dividends."""

    time: Times
    """Moments of payment: instants of funding, or midnight UTC of ex-dates, shape (n,)."""
    value: Floats
    """Fractions of the position's value for funding, cash per unit for dividends, shape (n,)."""

    def __post_init__(self) -> None:
        for array in (self.time, self.value):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over every moment and value, hexadecimal; equal on all machines."""
        digest = hashlib.sha256(f"payments-1|{len(self)}".encode())
        digest.update(self.time.astype("<i8").tobytes())
        digest.update((self.value + 0.0).astype("<f8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Carry:
    """Stored payments of a market; None where nothing is stored."""

    funding: Payments | None = None
    dividends: Payments | None = None


NO_CARRY = Carry()


@dataclass(frozen=True, eq=False)
class HoldingRates:
    """Costs of a position held into each bar, fractions of its value at the open; negative: received."""

    long: Floats
    """Shape (n_bars,)."""
    short: Floats
    """Shape (n_bars,)."""


def holding_rates(bars: Bars, holding: HoldingCosts, carry: Carry = NO_CARRY) -> HoldingRates | None:
    """Costs of holding into each bar; None if holding is free.

    The first bar is free: no position is held into the bar.

    Args:
        carry: stored payments; a constant funding rate fills the times without a stored rate.
    """
    is_stored = carry.funding is not None or carry.dividends is not None
    if not (is_stored or holding.funding_bps_per_8h or holding.borrow_bps_per_year):
        return None
    funding = np.zeros(len(bars))
    _add(funding, bars, _constant_funding(bars, holding.funding_bps_per_8h / 10_000, carry.funding))
    if carry.funding is not None:
        _add(funding, bars, carry.funding)
    dividends = np.zeros(len(bars))
    if carry.dividends is not None:
        _add(dividends, bars, carry.dividends)
    passive = dividends / bars.open
    elapsed = np.diff(bars.time, prepend=bars.time[:1])
    borrow = elapsed * (holding.borrow_bps_per_year / 10_000 / _YEAR)
    rates = HoldingRates(funding - passive, borrow - funding + passive)
    return rates if rates.long.any() or rates.short.any() else None


def _constant_funding(bars: Bars, rate: float, stored: Payments | None) -> Payments:
    """Constant rate at every 8 hours that the stored rates leave without a rate in the 8 hours before."""
    if rate == 0.0 or len(bars) < 2:
        return Payments(np.empty(0, np.int64), np.empty(0))
    first = bars.time[0] // FUNDING_INTERVAL + 1
    moments = np.arange(first, bars.time[-1] // FUNDING_INTERVAL + 1, dtype=np.int64) * FUNDING_INTERVAL
    if stored is not None:
        until = np.searchsorted(stored.time, moments, side="right")
        since = np.searchsorted(stored.time, moments - FUNDING_INTERVAL, side="right")
        moments = moments[until == since]
    return Payments(moments, np.full(len(moments), rate))


def _add(totals: Floats, bars: Bars, payments: Payments) -> None:
    """Add each payment to the bar at whose open the payment is due."""
    rows = np.searchsorted(bars.time, payments.time, side="left")
    due = (rows > 0) & (rows < len(bars))
    np.add.at(totals, rows[due], payments.value[due])
