"""Age of the newest bar of a market, against timeframe and calendar."""

from datetime import timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

FROZEN = ConfigDict(frozen=True, extra="forbid")
_YEAR = timedelta(days=365.25)
_MONTH = timedelta(days=365.25 / 12)
_UNITS = (
    (_YEAR, "year"),
    (_MONTH, "month"),
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
)


class BarAge(BaseModel):
    """Age of the newest bar of a market at a moment."""

    model_config = FROZEN

    symbol: str
    timeframe: str
    newest_close: AwareDatetime
    """Close time of the newest stored bar."""
    at: AwareDatetime
    """Moment of the measurement."""
    late_bars: int
    """Bars that the calendar of the market requires after the newest bar, up to the moment."""
    is_stale: bool
    """True from `watch.stale_bars` late bars on."""

    @property
    def market(self) -> str:
        """`BTCUSD 1h`, also the subject of an alert."""
        return f"{self.symbol} {self.timeframe}"

    @property
    def age(self) -> str:
        """Time since the newest bar closed: `14 months`."""
        return in_words(self.at - self.newest_close)

    @property
    def late(self) -> str:
        """`3 bars late`, or `none late`."""
        if not self.late_bars:
            return "none late"
        return f"{self.late_bars:,} {'bar' if self.late_bars == 1 else 'bars'} late"

    @property
    def sentence(self) -> str:
        """Close of the newest bar and number of late bars, without a full stop."""
        return (
            f"the newest bar of {self.market} closed at {self.newest_close:%Y-%m-%d %H:%M} UTC, {self.age} "
            f"ago: {self.late}"
        )


class MarketAge(BaseModel):
    """Age of the bars of a market in use."""

    model_config = FROZEN

    bars: BarAge
    is_fetched: bool
    """True if the universe names an exchange or a database."""
    is_demo: bool
    """True for a series of the demo, without new bars."""
    serving: tuple[str, ...]
    """Models with a production version on the market, pools included."""

    @property
    def is_alarming(self) -> bool:
        """True for a stale market from which new bars are expected."""
        return self.bars.is_stale and not self.is_demo and (self.is_fetched or bool(self.serving))

    @property
    def word(self) -> str:
        """`STALE`, `demo`, `late` or `current`."""
        if self.is_demo:
            return "demo"
        if self.bars.is_stale:
            return "STALE"
        return "late" if self.bars.late_bars else "current"


class DataAge(BaseModel):
    """Ages of the markets in use."""

    model_config = FROZEN

    markets: tuple[MarketAge, ...] = ()
    """Stale markets first, each group by name; markets without bars are left out."""
    problem: str | None = None
    """Reason why the ages are unknown or incomplete, if any."""

    def of(self, symbol: str, timeframe: str) -> MarketAge | None:
        """Age of a market; None for a market without bars, or not in use."""
        return next(
            (each for each in self.markets if (each.bars.symbol, each.bars.timeframe) == (symbol, timeframe)),
            None,
        )


def in_words(span: timedelta) -> str:
    """A span in the largest unit that fits twice: `14 months`, `3 hours`; `moments` below a minute."""
    unit, name = next(((unit, name) for unit, name in _UNITS if span >= 2 * unit), _UNITS[-1])
    count = span // unit
    return "moments" if count < 1 else f"{count:,} {name if count == 1 else f'{name}s'}"
