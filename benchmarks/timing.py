"""Size and power of the timing checks: rewrites the tables of docs/decisions/0057-timing-or-just-long.md.

python -m benchmarks.timing             about ten minutes on one core; the same seed gives the same tables
python -m benchmarks.timing holders     the tables of the holders alone, about three minutes

Real series are read from CLM_BENCHMARK_DATA, by default ../shared/data.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.power import error, percent, table
from benchmarks.recipes import FREE, Window, bars_of, market_of
from clm_core.backtest.baselines import Baseline, run_baselines
from clm_core.backtest.metrics import summarise
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.sizing import Sizing
from clm_core.domain.terms import TradingTerms
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.exposure_null import timing_probability
from clm_core.evidence.track_record import probabilistic_sharpe_ratio, track_record
from clm_core.evidence.trials import TrialCount
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.sizing import size_positions
from clm_core.retraining.case import alpha_of, timing_of
from clm_core.retraining.results import BacktestEvaluation
from clm_core.retraining.stored_evidence import MarketRuns, OutOfSampleRuns

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0057-timing-or-just-long.md"
MARK = "<!-- below: python -m benchmarks.timing -->\n"
SEED = 20_251_129
CONFIDENCE = 0.95
YEAR = 8_760
VOLATILITY = 0.6 / math.sqrt(YEAR)
"""Standard deviation of an hourly return."""
Rule = Callable[[Floats, np.random.Generator], Floats]
"""Function from returns and a generator to positions, shape (n_bars,) each."""


def held(returns: Floats, rng: np.random.Generator, spell: float, sides: tuple[float, ...]) -> Floats:
    """Sides at random, each held for `spell` bars on average."""
    spells = np.cumsum(rng.random(len(returns)) < 1.0 / spell)
    return rng.choice(sides, spells[-1] + 1)[spells]


def targeted(returns: Floats, rng: np.random.Generator) -> Floats:
    """Long at a volatility target, half-life of 72 bars."""
    return np.minimum(0.5 * returns.std() / trailing_deviation(returns, 72.0), 1.0)


def trailing_deviation(returns: Floats, half_life: float) -> Floats:
    from scipy.signal import lfilter

    weight = 1.0 - 0.5 ** (1.0 / half_life)
    start = [(1.0 - weight) * np.var(returns)]
    return np.sqrt(lfilter([weight], [1.0, weight - 1.0], returns**2, zi=start)[0])


def following(returns: Floats, rng: np.random.Generator) -> Floats:
    """Sign of the return of the last 30 days, at a volatility target."""
    totals = np.concatenate([[0.0], np.cumsum(returns)])
    side = np.append(np.zeros(720), np.sign(totals[721:] - totals[1:-720]))
    return side * targeted(returns, rng)


RULES: dict[str, Rule] = {
    "short, flat or long, held for a day": partial(held, spell=24.0, sides=(-1.0, 0.0, 1.0)),
    "short, flat or long, held for a week": partial(held, spell=168.0, sides=(-1.0, 0.0, 1.0)),
    "flat or long, held for four days": partial(held, spell=96.0, sides=(0.0, 1.0, 1.0)),
    "long at a volatility target": targeted,
    "trend of 30 days at a volatility target": following,
}


def size(rng: np.random.Generator) -> str:
    streams = 1000
    rows = []
    for (name, rule), drift in product(RULES.items(), (0.0, 1.0)):
        centred = np.empty(streams)
        uncentred = np.empty(streams)
        drawn = draw_returns(Shape.GARCH, drift / math.sqrt(YEAR), (YEAR, streams), rng)
        for stream, unit in enumerate(np.ascontiguousarray(drawn.T)):
            positions = rule(unit, rng)[:-1]
            centred[stream] = timing_probability([positions], [unit[1:]])
            uncentred[stream] = without_centring(positions, unit[1:])
        rows.append(
            [
                name,
                f"{drift:g}",
                percent(np.mean(centred >= CONFIDENCE)),
                percent(np.mean(uncentred >= CONFIDENCE)),
            ]
        )
    return table(
        "Positions that know nothing",
        f"Share of {streams:,} years of hourly GARCH bars with P(timing) of at least 0.95; it should be 5 %; "
        f"{error(0.05, streams)}. In the last column neither positions nor returns are centred.",
        ["positions", "Sharpe ratio of the market", "P(timing)", "uncentred"],
        rows,
    )


def without_centring(positions: Floats, returns: Floats) -> float:
    spectrum = np.conj(np.fft.rfft(positions)) * np.fft.rfft(returns)
    earned = np.fft.irfft(spectrum, len(positions))
    return float(np.mean(earned[1:] < earned[0]))


SERIES = (
    Window("SPY_1d", "SPY", "1d", "1998-01-01", "2021-04-01", 0),
    Window("AAPL_1h", "AAPL", "1h", "2016-04-01", "2021-04-01", 0),
    Window("XAUUSD_1h", "XAUUSD", "1h", "2012-05-17", "2022-03-05", 0),
    Window("BTCUSDT_1h", "BTCUSDT", "1h", "2017-08-17", "2025-09-20", 0),
)
WINDOW = np.timedelta64(730, "D")
STEP = np.timedelta64(91, "D")


def sized(bars: Bars, signal: Floats, **changes: float) -> Floats:
    return size_positions(bars, signal, Sizing(**changes))


def holders(bars: Bars, rng: np.random.Generator) -> dict[str, list[Floats]]:
    """Positions of holders on all bars of a window; of the random holder, `DRAWS` draws."""
    ones = np.ones(len(bars))
    noise = ones + 0.1 * np.sin(np.arange(len(bars)) / 37.0)
    mostly = (0.0, 1.0, 1.0, 1.0, 1.0)
    return {
        "long": [ones],
        "long at the default volatility target": [sized(bars, ones)],
        "long at a faster target, no band": [sized(bars, ones, volatility_half_life=24.0, no_trade_band=0.0)],
        "nearly constant": [0.9 * noise],
        RANDOM: [held(ones, rng, len(bars) / 40.0, mostly) for _ in range(DRAWS)],
    }


RANDOM = "long four fifths of the time, at random"
DRAWS = 20
"""Draws of the random holder in each window: the windows are few."""
LIMIT = 0.05
"""Largest share of windows in which a holder may meet both checks."""
OVERLAP = 8
"""Number of windows that share bars with one of them, itself included: two years, one begun a quarter."""
Shares = dict[str, Floats]
"""By name of the positions: shares of draws with timing, with alpha and with both, shape (n_windows, 3)."""


def shares_of(series: Window) -> Shares:
    rng = np.random.default_rng(SEED)
    whole = bars_of(series)
    passed: dict[str, list[Floats]] = {}
    first = whole.time[0].astype("M8[ns]")
    last = whole.time[-1].astype("M8[ns]")
    for start in np.arange(first, last - WINDOW, STEP):
        edges = np.searchsorted(whole.time, [start.astype(np.int64), (start + WINDOW).astype(np.int64)])
        bars = whole[int(edges[0]) : int(edges[1])]
        market = market_of(bars).under(NEW_VERSIONS)
        baselines = run_baselines(market, bars, slice(0, len(bars)), sized)
        for name, drawn in holders(bars, rng).items():
            results = [checks(market, bars, positions, baselines) for positions in drawn]
            timing, alpha = np.array(results).T
            shares = np.array([np.mean(timing), np.mean(alpha), np.mean(timing & alpha)])
            passed.setdefault(name, []).append(shares)
    return {name: np.array(shares) for name, shares in passed.items()}


def windows() -> str:
    shares = {series.name: shares_of(series) for series in SERIES}
    rows = [
        [name, positions, f"{len(each):,}", *(percent(share) for share in each.mean(axis=0))]
        for name, of_series in shares.items()
        for positions, each in of_series.items()
    ]
    return "\n".join(
        [
            table(
                "Holders on real series",
                "Share of windows of two years, one beginning every quarter, in which a holder meets the "
                f"checks, after costs; of the random holder, the mean of {DRAWS} draws a window. With both "
                "checks it could reach shadow, the other checks aside.",
                ["series", "positions", "windows", "timing", "alpha", "both"],
                rows,
            ),
            table(
                "Holders by market",
                "Both checks over all rows of a market, each row counted once, against the claim of at most "
                f"{percent(LIMIT)}. Windows overlap: {OVERLAP} consecutive ones share bars, and the error is "
                "that of the windows without overlap. The last column treats the windows of a row as "
                "independent: the binomial probability of at least as many as in the row with most, were the "
                f"share {percent(LIMIT)}. Overlap makes high counts likelier than that.",
                ["series", "windows without overlap", "both, all rows", "error", "most", "P of the most"],
                [_against_claim(name, of_series) for name, of_series in shares.items()],
            ),
        ]
    )


def _against_claim(name: str, shares: Shares) -> list[str]:
    """Row of a market: the share over all rows with the error, and the row with the highest share."""
    from scipy.stats import binom

    both = {positions: each[:, 2] for positions, each in shares.items()}
    by_window = np.mean(list(both.values()), axis=0)
    separate = (len(by_window) + OVERLAP - 1) / OVERLAP
    spread = float(np.std(by_window, ddof=1)) / math.sqrt(separate)
    worst = max(both, key=lambda positions: float(np.mean(both[positions])))
    count = math.ceil(round(float(np.sum(both[worst])), 9))
    chance = float(binom.sf(count - 1, len(by_window), LIMIT))
    return [
        name,
        f"{separate:.1f}",
        percent(float(np.mean(by_window))),
        f"± {percent(spread)}",
        f"{worst}: {percent(float(np.mean(both[worst])))}",
        percent(chance),
    ]


def checks(
    market: MarketTerms, bars: Bars, positions: Floats, baselines: tuple[Baseline, ...] | None = None
) -> tuple[bool, bool]:
    evaluation = evaluated(market, bars, positions, baselines)
    timing = timing_of(evaluation)
    return timing >= CONFIDENCE, alpha_of(evaluation).joint.at_least(CONFIDENCE) >= 0.0


def evaluated(
    market: MarketTerms, bars: Bars, positions: Floats, baselines: tuple[Baseline, ...] | None = None
) -> BacktestEvaluation:
    """Evaluation of positions as after a retrain.

    Args:
        baselines: those of the market on the bars; None computes them.
    """
    result = market.backtest(bars, positions)
    metrics = summarise(result, bars.periods_per_year)
    if baselines is None:
        baselines = run_baselines(market, bars, slice(0, len(bars)), sized)
    runs = OutOfSampleRuns((MarketRuns(bars.symbol, bars.time, positions[None]),), np.empty((1, 0)))
    plan = WalkForwardPlan()
    return BacktestEvaluation(
        bars=bars,
        positions=positions,
        judged_seed=0,
        seed_sharpes=(),
        result=result,
        metrics=metrics,
        baselines=baselines,
        rules=(),
        market=market,
        runs=runs,
        plan=plan,
    )


def power(rng: np.random.Generator) -> str:
    streams = 200
    trials = TrialCount(10, 10.0)
    market = MarketTerms(TradingTerms(costs=FREE)).under(NEW_VERSIONS)
    rows = []
    sides = {"short or long": (-1.0, 1.0), "flat or long": (0.0, 1.0)}
    for sharpe, (name, choice) in product((2.0, 2.5), sides.items()):
        passed = np.empty((streams, 3), bool)
        noise = draw_returns(Shape.GARCH, 0.0, (3 * YEAR, streams), rng)
        for stream in range(streams):
            bars, positions = planted(sharpe, choice, noise[:, stream], rng)
            evaluation = evaluated(market, bars, positions)
            record = track_record(evaluation.result.returns)
            deflated = probabilistic_sharpe_ratio(record, trials.expected_maximum(record.effective_bars))
            timing = timing_of(evaluation) >= CONFIDENCE
            alpha = alpha_of(evaluation).joint.at_least(CONFIDENCE) >= 0.0
            passed[stream] = deflated >= CONFIDENCE, timing, alpha
        alone = passed[:, 0]
        both = passed.all(axis=1)
        rows.append(
            [
                f"{sharpe:g}",
                name,
                percent(np.mean(passed[:, 1])),
                percent(np.mean(passed[:, 2])),
                percent(np.mean(alone)),
                percent(np.mean(both)),
                percent(1.0 - float(np.mean(both)) / max(float(np.mean(alone)), 1e-9)),
            ]
        )
    return table(
        "A planted timing edge",
        f"Share of {streams} records of three years of hourly GARCH bars (60 % volatility a year, no drift "
        f"but the edge's own), positions held for two days at random, ten trials, without costs; "
        f"{error(0.5, streams)} at 50 %.",
        [
            "true Sharpe ratio a year",
            "positions",
            "timing",
            "alpha",
            "DSR of at least 0.95",
            "DSR, timing and alpha",
            "power lost",
        ],
        rows,
    )


def planted(
    sharpe: float, sides: tuple[float, ...], noise: Floats, rng: np.random.Generator
) -> tuple[Bars, Floats]:
    """Bars whose returns follow positions with a given annual Sharpe ratio beyond their mean exposure."""
    n = len(noise)
    positions = held(np.empty(n), rng, 48.0, sides)
    centred = positions - positions.mean()
    strength = sharpe / math.sqrt(YEAR) * math.sqrt(np.mean(positions**2)) / np.mean(centred**2)
    moves = VOLATILITY * (noise + strength * np.append(0.0, centred[:-1]))
    closes = 100.0 * np.exp(np.cumsum(moves - VOLATILITY**2 / 2.0))
    opens = np.append(100.0, closes[:-1])
    columns = (opens, np.maximum(opens, closes), np.minimum(opens, closes), closes, np.ones(n))
    time = np.arange(n, dtype=np.int64) * Timeframe.H1.nanoseconds
    return Bars("PLANTED", Timeframe.H1, Calendar.ALWAYS, time, *columns), positions


PARTS: dict[str, Callable[[], str]] = {
    "size": lambda: size(np.random.default_rng(SEED)),
    "holders": windows,
    "power": lambda: power(np.random.default_rng(SEED)),
}
TITLES = {
    "size": ("Positions that know nothing",),
    "holders": ("Holders on real series", "Holders by market"),
    "power": ("A planted timing edge",),
}


def main() -> None:
    parts = sys.argv[1:] or list(PARTS)
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"no table {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    before, _, present = DOCUMENT.read_text().partition(MARK)
    kept = {each.partition("\n")[0]: f"### {each.strip()}\n" for each in present.split("### ")[1:]}
    made = dict[str, str]()
    for name in parts:
        made[name] = PARTS[name]()
        print(made[name], flush=True)
    texts = [
        made.get(name) or "\n".join(kept[title] for title in titles if title in kept)
        for name, titles in TITLES.items()
    ]
    DOCUMENT.write_text(before + MARK + "\n" + "\n".join(texts))


if __name__ == "__main__":
    main()
