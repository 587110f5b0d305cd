"""Measured values as text: name and number format of each check, the same on every page and terminal."""

import math
from collections.abc import Callable

NOT_MEASURED = "not measured"
MIN_BARS = 20
"""Minimum number of returns in a track record: fewer say nothing of the tails of the distribution."""


def formatter(format_number: Callable[[float], str]) -> Callable[[float], str]:
    """Formatter of finite values that writes NaN and infinity in words or signs, never as "nan"."""

    def formatted(value: float) -> str:
        if math.isfinite(value):
            return format_number(value)
        return NOT_MEASURED if math.isnan(value) else "∞" if value > 0 else "-∞"

    return formatted


def finite_or_none(value: float) -> float | None:
    """The value for JSON, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


percent = formatter(lambda value: f"{100 * value:,.1f}%")
fine_percent = formatter(lambda value: f"{100 * value:,.3f}%")
signed_percent = formatter(lambda value: f"{100 * value:+,.1f}%")
ratio = formatter(lambda value: f"{value:,.2f}")
signed_ratio = formatter(lambda value: f"{value:+,.2f}")
probability = formatter(lambda value: f"{value:.3f}")
count = formatter(lambda value: f"{value:,.0f}")
basis_points = formatter(lambda value: f"{value:,.2f} bps")
yes_or_no = formatter(lambda value: "yes" if value else "no")
number = formatter(lambda value: f"{value:,.6g}")
significant = formatter(lambda value: f"{value:,.4g}")

FORMATS: dict[str, Callable[[float], str]] = {
    "ruined": yes_or_no,
    "share_of_one_side": percent,
    "bundle_activity": percent,
    "skill": fine_percent,
    "sharpe_ratio": ratio,
    "win_rate": percent,
    "profit_factor": ratio,
    "max_drawdown": percent,
    "trades": count,
    "expectancy": fine_percent,
    "deflated_sharpe_ratio": probability,
    "track_record_bars": count,
    "timing": probability,
    "alpha": percent,
    "probability_of_overfitting": percent,
    "probability_of_loss": percent,
    "lead_over_champion_bps": basis_points,
    "agreement_with_champion": ratio,
    "shadow_lead_bps": basis_points,
}
"""Number format by name of the check; four significant digits for any other check."""

LABELS = {
    "share_of_one_side": "bars on one side",
    "position_deviation": "deviation of positions",
    "bundle_activity": "activity of the fitted model",
    "skill": "skill against a constant",
    "expectancy": "expectancy of a trade, at least",
    "track_record_bars": "track record, bars",
    "probability_of_loss": "probability of a loss of the chosen candidate",
    "lead_over_champion_bps": "lead over champion, at best",
    "shadow_lead_bps": "lead in shadow, at least",
    "alpha": "alpha a year, at least",
}
"""Names for people, where the name with spaces does not do."""


def with_interval(value: float, low: float, high: float, write: Callable[[float], str]) -> str:
    """An estimate with an interval: "1.45 (0.20 to 2.70)"; without an interval of NaN."""
    if math.isnan(low) or math.isnan(high):
        return write(value)
    return f"{write(value)} ({write(low)} to {write(high)})"


def format_of(check: str) -> Callable[[float], str]:
    """Number format of a check."""
    return FORMATS.get(check, significant)


def label_of(check: str) -> str:
    """Name of a check for people: "Sharpe ratio"."""
    return LABELS.get(check, check.replace("_", " ").replace("sharpe", "Sharpe"))


def apart(check: str, value: float, limit: float) -> str:
    """The value in the format of the check, with all digits where it would otherwise read like the limit."""
    text = format_of(check)(value)
    if value == limit or text != format_of(check)(limit):
        return text
    if FORMATS.get(check) in (percent, fine_percent):
        return f"{100 * value!r}%"
    return repr(value)
