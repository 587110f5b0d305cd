"""Sizing: from the signal of a model to the position traded."""

import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.execution import OptionalLimit

NO_SIZING = "none"
"""Text in place of a sizing: positions are the signals themselves."""
LATER_FIELDS = {"min_scale": 0.05, "max_turnover": None}
"""Meaning of fields missing in a section that was stored in full before the fields existed."""
SHARE_LEFT_OUT = 1 / 16
"""Weight of the bars beyond the window of an exponential average: the window is four half-lives long."""
YEAR_SECONDS = 365 * 86_400
FLAT = 1e-9
"""Positions of at most this size count as flat."""


@dataclass(frozen=True)
class GrowthLimit:
    """Limit on the growth of positions, which bounds the turnover of any span of bars.

    Beyond the span's share of the yearly turnover, at most four allowances and a `max_position` are traded:
    growth of two periods more than the span is long, given up again, and a position held at its start.
    """

    period: int
    """Length of a period on the clock, bar lengths."""
    allowance: float
    """Largest growth of the size of positions in a period, a fraction of the equity; above `max_position`."""


class Sizing(BaseModel):
    """Constants of the steps from a signal in [-1, 1] to a position; formulas: `models.sizing`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    smoothing_half_life: float = Field(default=36.0, ge=0, le=1_000)
    """Half-life of the exponential average of the signal, bars; 0 for none."""
    scale_half_life: float = Field(default=120.0, gt=0, le=2_000)
    """Half-life of the average size that divides the signal, bars."""
    min_scale: float = Field(default=0.05, gt=0, le=1)
    """Least divisor of the signal, an average size: signals much smaller take smaller positions."""
    target_volatility: OptionalLimit = Field(default=0.10, gt=0, le=10)
    """Yearly volatility aimed at, as a fraction; "none" for the smoothed signal times `max_position`."""
    volatility_half_life: float = Field(default=72.0, gt=0, le=2_000)
    """Half-life of the average of the squared returns, bars."""
    min_edge: float = Field(default=0.0, ge=0, le=100)
    """Least expected return for a position, in costs of a round trip; 0 for no threshold. Without effect on
    kinds without expected returns."""
    round_trip_bps: OptionalLimit = Field(default=None, ge=0, lt=20_000)
    """Cost of a round trip for `min_edge`, basis points; "none": fee and slippage of the market, twice."""
    long_only: bool = False
    """True to take no position where the signal is short."""
    max_position: float = Field(default=1.0, gt=0, le=1)
    """Largest size of a position, a fraction of the equity."""
    no_trade_band: float = Field(default=0.6, ge=0, le=2)
    """Largest difference from the position wanted at which the position held is kept, as a fraction of a
    full-size position; 0 for none."""
    anchor_bars: int = Field(default=168, ge=1, le=10_000)
    """Bar lengths between the moments on the clock for a new start of the position held."""
    max_turnover: OptionalLimit = Field(default=None, gt=0, le=100_000)
    """Largest turnover a year, times the equity, and about five full positions (`GrowthLimit`); "none" for no
    limit."""

    @property
    def smoothing_window(self) -> int:
        return window_of(self.smoothing_half_life)

    @property
    def scale_window(self) -> int:
        return window_of(self.scale_half_life) if self.target_volatility is not None else 1

    @property
    def volatility_window(self) -> int:
        return window_of(self.volatility_half_life) if self.target_volatility is not None else 0

    def growth_limit(self, bar_seconds: int) -> GrowthLimit | None:
        """Growth limit for bars of a length; None without a `max_turnover`.

        Every growth is given up again, so that half of the turnover may be growth. A period is the fewest
        bars in which that half exceeds a full position.
        """
        if self.max_turnover is None:
            return None
        growth = self.max_turnover / 2 * bar_seconds / YEAR_SECONDS
        # clearly more than a full position, so that sums in floating point reach it too
        period = math.floor((1 + 1e-9) * self.max_position / growth) + 1
        return GrowthLimit(period, period * growth)

    def bars_needed(self, by_signal: int, bar_seconds: int | None = None) -> int:
        """Closed bars from which on more history changes no position of the last bar.

        Args:
            by_signal: the same number for the signal.
            bar_seconds: length of a bar; needed for a sizing with a `max_turnover`.
        """
        by_averages = self.bars_by_averages(by_signal)
        return self._held_bars(bar_seconds) + max(by_averages, self.volatility_window + 1, 2)

    def bars_by_averages(self, by_signal: int) -> int:
        """Closed bars from which on more history changes no smoothed and scaled signal of the last bar.

        Args:
            by_signal: the same number for the signal.
        """
        return by_signal + self.smoothing_window + self.scale_window - 2

    def bars_by_signal(self, bars_needed: int, bar_seconds: int | None = None) -> int:
        """Closed bars needed by the signal, from the number needed by the positions.

        Args:
            bar_seconds: length of a bar; needed for a sizing with a `max_turnover`.
        """
        by_averages = self.smoothing_window + self.scale_window - 2
        return max(1, bars_needed - self._held_bars(bar_seconds) - by_averages)

    def _held_bars(self, bar_seconds: int | None) -> int:
        """Bars before the last bar whose positions wanted have a part in the position of the last bar."""
        # the position held comes from an anchor at most `anchor_bars` - 1 bars before the last bar
        held = self.anchor_bars - 1
        if self.max_turnover is None:
            return held
        if bar_seconds is None:
            raise ValueError("name the length of a bar: the memory of max_turnover is a span of time")
        limit = self.growth_limit(bar_seconds)
        assert limit is not None
        # a whole period before the current one, and the bar before, from which growth is measured
        return held + 2 * limit.period


def window_of(half_life: float) -> int:
    """Bars of an exponential average, the current bar included; 1 for a half-life of 0."""
    return max(1, math.ceil(half_life * math.log2(1 / SHARE_LEFT_OUT)))


def sizing_of(section: Any, default: "Sizing | None") -> "Sizing | None":
    """Sizing of the section `sizing` of training parameters; None for "none".

    Args:
        section: "none", or the fields that differ from the default; None for no section.
        default: sizing of a kind of model.

    Raises:
        ValidationError: a field is unknown or out of range.
    """
    if section is None:
        return default
    if section == NO_SIZING:
        return None
    base = (default or Sizing()).model_dump()
    if isinstance(section, dict) and base.keys() - section.keys() <= LATER_FIELDS.keys():
        base |= LATER_FIELDS
    return Sizing.model_validate(base | section if isinstance(section, dict) else section)
