"""Live returns in the cone of the backtest, and the probability of bad luck."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from panels import START, a_market

from clm_core.domain.explanations import Section
from clm_core.domain.standings import BAND_LEVEL
from clm_core.evidence.equity_band import daily_growth, equity_band
from clm_core.evidence.track_record import TrackRecord
from clm_core.explain.cone import (
    Backtested,
    LivePart,
    backtested,
    cone_section,
    live_part,
    luck_of_backtest,
    luck_of_live,
)
from clm_core.market.bars import Bars, Floats

SINCE = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = a_market("CONEUSD", 24 * 200, 1)
YEAR = 24 * 365.0


def garch(days: int, worlds: int, rng: np.random.Generator) -> Floats:
    """Daily returns with the fat tails and the calm and wild stretches of a market, shape (worlds, days)."""
    variance = np.ones(worlds)
    returns = np.empty((worlds, days))
    for day in range(days):
        returns[:, day] = np.sqrt(variance) * rng.standard_t(5, worlds) / math.sqrt(5 / 3)
        variance = 0.02 + 0.08 * returns[:, day] ** 2 + 0.9 * variance
    return np.asarray(0.0005 + 0.012 * returns)


@pytest.mark.parametrize("kind", ["normal", "fat tails", "garch"])
def test_the_cone_covers_nine_of_ten_simulated_years(kind: str) -> None:
    rng = np.random.default_rng(5)
    worlds = 250
    record = 500
    year = 365
    size = (worlds, record + year)
    if kind == "garch":
        daily = garch(record + year, worlds, rng)
    else:
        draws = rng.normal(size=size) if kind == "normal" else rng.standard_t(3, size) / math.sqrt(3)
        daily = 0.0005 + 0.012 * draws
    days = np.arange(1.0, year + 1.0)
    inside = []
    for each in daily:
        growth = daily_growth(each[:record])
        assert growth is not None
        band = equity_band(growth, days, BAND_LEVEL)
        equity = np.cumprod(1.0 + each[record:])
        inside.append(np.mean((band.low <= equity) & (equity <= band.high)))
    assert 0.85 <= np.mean(inside) <= 0.95


def noise(bars: int, sharpe: float, seed: int) -> Floats:
    """Normal returns of hourly bars with exactly an annual Sharpe ratio."""
    draws = np.random.default_rng(seed).normal(size=bars)
    draws = (draws - draws.mean()) / draws.std(ddof=1)
    return np.asarray(0.002 * (draws + sharpe / math.sqrt(YEAR)))


def of_length(bars: int) -> Bars:
    return HOURS[:bars]


def live(sharpe: float, bars: int = 2400, seed: int = 3) -> LivePart:
    return live_part("production", SINCE, of_length(bars), noise(bars, sharpe, seed), np.ones(bars, bool))


def judged(sharpe: float) -> Backtested:
    return backtested(HOURS, noise(len(HOURS), sharpe, 2))


def section_of(sharpe: float) -> Section:
    backtest = judged(3.0)
    part = live(sharpe)
    return cone_section(backtest, [part], "rolled back", luck_of_live(part, backtest))


def test_bad_luck_is_the_normal_probability_of_the_difference_of_two_sharpe_ratios() -> None:
    backtest = Backtested(None, TrackRecord(0.03, 0.0, 3.0, 4001, 4001.0), YEAR)
    part = live(0.0)
    shown = TrackRecord(0.0, 0.0, 3.0, 2401, 2401.0)
    test = luck_of_live(LivePart("production", SINCE, part.days, part.equity, shown), backtest)
    # standard errors of 1 / sqrt(2400) and sqrt(1 + 0.03^2 / 2) / sqrt(4000)
    score = 0.03 / math.sqrt(1 / 2400 + (1 + 0.03**2 / 2) / 4000)
    assert test.chance == pytest.approx(0.5 * math.erfc(score / math.sqrt(2)))
    # 1 + (1 + 0.03^2 / 2) (1.645 / 0.03)^2
    assert test.needed == pytest.approx(3008.2, abs=0.5)
    assert test.days == pytest.approx(test.needed / 24)


def test_bad_luck_happens_as_often_as_stated() -> None:
    rng = np.random.default_rng(11)
    mean = 1.5 / math.sqrt(YEAR)
    chances = []
    for _ in range(300):
        returns = rng.normal(mean, 1.0, 2000)
        backtest = backtested(of_length(1200), returns[:1200])
        part = live_part("shadow", SINCE, of_length(800), 0.001 * returns[1200:], np.ones(800, bool))
        chances.append(luck_of_live(part, backtest).chance)
    # uniform for a version that goes on as in its backtest
    assert np.quantile(chances, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.06)


def test_a_disappointing_version_is_explained_in_one_sentence() -> None:
    sentences = section_of(-4.0).sentences
    assert sentences[0].startswith(
        "Rolled back: a version as good as its backtest (Sharpe ratio 3.00) shows -4.00 or less by bad luck "
    )
    assert "telling such a version from one without an edge takes 2," in sentences[0]
    assert sentences[1].startswith("In production for 100 days: -")
    assert sentences[2] == "The cone holds 90 % of the ways to go on as in the backtest of 200 days."


def test_a_version_that_does_as_well_as_its_backtest_had_no_bad_luck() -> None:
    assert (
        "reaches the 3.00 of a version as good as its backtest: no bad luck" in section_of(3.5).sentences[0]
    )


def test_bars_recorded_late_count_as_flat() -> None:
    returns = noise(600, 2.0, 3)
    earned = np.arange(600) >= 300
    part = live_part("shadow", SINCE, of_length(600), returns, earned)
    assert part.record.bars == 300
    assert part.equity[299] == 1.0
    assert part.days[-1] == pytest.approx(25.0)
    assert int(SINCE.timestamp() * 1e9) == START


def test_the_gates_requirement_is_compared_with_the_backtest() -> None:
    test = luck_of_backtest(judged(0.5), 1.0)
    # the standard error of a yearly Sharpe ratio over t years is 1 / sqrt(t)
    years = len(HOURS) / YEAR
    assert test.chance == pytest.approx(0.5 * math.erfc(0.5 * math.sqrt(years / 2)), abs=0.01)
    assert test.needed == pytest.approx(1.645**2 * YEAR, rel=0.1)
    assert "as good as required (Sharpe ratio 1.00) shows 0.50 or less by bad luck" in test.clause


def test_a_short_record_has_no_probability() -> None:
    short = backtested(of_length(10), np.zeros(10))
    assert "10 bars are too few, or vary too little" in luck_of_backtest(short, 1.0).clause


def test_a_section_without_live_bars_or_cone_is_json_too() -> None:
    section = cone_section(backtested(of_length(10), np.zeros(10)), [])
    assert section.sentences == (
        "No bar has been earned live yet.",
        "The backtest has fewer than 60 days, or never varies: there is no cone.",
    )
    for each in (section, section_of(-4.0)):
        json.dumps(each.model_dump(mode="json"), allow_nan=False)
    [chart] = section_of(-4.0).charts
    assert [trace["name"] for trace in chart.figure["data"]] == [
        "low",
        "90 % cone",
        "median",
        "in production",
    ]
