from collections.abc import Callable

import numpy as np
import pytest

from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.look_ahead import first_leak, other_futures

ROWS = (200, 450, 700)


def centred_mean(bars: Bars) -> Floats:
    return np.convolve(bars.close, np.ones(5) / 5, mode="same")


def z_score_over_the_whole_series(bars: Bars) -> Floats:
    return (bars.close - bars.close.mean()) / bars.close.std()


def return_of_the_next_bar(bars: Bars) -> Floats:
    return np.append(bars.open[1:] / bars.close[:-1] - 1, np.nan)


def scaled_by_the_last_price(bars: Bars) -> Floats:
    return bars.close / bars.close[-1]


def volume_of_the_next_bar(bars: Bars) -> Floats:
    return np.append(bars.volume[1:], 0.0)


def bars_until_the_next_outage(bars: Bars) -> Floats:
    return np.searchsorted(bars.segments, bars.segments, side="right") - np.arange(len(bars)) * 1.0


def leak_in_the_second_column(bars: Bars) -> Floats:
    return np.column_stack([bars.close, scaled_by_the_last_price(bars)])


def backward_fill_of_what_is_missing_at_first(bars: Bars) -> Floats:
    mean = np.full(len(bars), bars.close[250] if len(bars) > 250 else np.nan)
    mean[250:] = bars.close[250:]
    return mean


def expanding_mean(bars: Bars) -> Floats:
    return np.cumsum(bars.close) / np.arange(1, len(bars) + 1)


def return_with_a_warm_up(bars: Bars) -> Floats:
    return np.append(np.nan, np.diff(np.log(bars.close)))


@pytest.mark.parametrize(
    "compute",
    [
        centred_mean,
        z_score_over_the_whole_series,
        return_of_the_next_bar,
        scaled_by_the_last_price,
        volume_of_the_next_bar,
        bars_until_the_next_outage,
        leak_in_the_second_column,
        backward_fill_of_what_is_missing_at_first,
    ],
)
def test_a_leak_is_found(compute: Callable[[Bars], Floats], walk: Bars) -> None:
    assert first_leak(compute, walk, ROWS) is not None


@pytest.mark.parametrize("compute", [expanding_mean, return_with_a_warm_up])
def test_values_of_earlier_bars_alone_pass(compute: Callable[[Bars], Floats], walk: Bars) -> None:
    assert first_leak(compute, walk, ROWS) is None


def test_the_finding_names_the_row_the_column_and_the_change(walk: Bars) -> None:
    leak = first_leak(leak_in_the_second_column, walk, ROWS)

    assert leak == "value (0, 1) changes when the bars after row 200 are cut off"


def test_a_wrong_number_of_values_is_a_finding(walk: Bars) -> None:
    assert first_leak(lambda bars: bars.close[-100:], walk, [150]) is not None


@pytest.mark.parametrize("rows", [[899], [-1], []], ids=["last bar", "negative", "none"])
def test_a_row_without_a_future_is_refused(rows: list[int], walk: Bars) -> None:
    with pytest.raises(ValueError, match=r"no future|at least one row"):
        first_leak(expanding_mean, walk, rows)


def test_an_outage_that_was_not_yet_known_is_found(walk: Bars) -> None:
    def time_to_the_next_bar(bars: Bars) -> Floats:
        return np.append(np.diff(bars.time), bars.timeframe.nanoseconds).astype(np.float64)

    leak = first_leak(time_to_the_next_bar, walk, [200])

    assert leak == "value (200,) changes when the bars after row 200 are delayed"


def test_futures_differ_after_the_row_and_nowhere_else(walk: Bars) -> None:
    futures = dict(other_futures(walk, 300))

    for change, other in futures.items():
        for name in ("time", *FIELDS):
            assert np.array_equal(getattr(other, name)[:301], getattr(walk, name)[:301]), (change, name)
    for change in ("multiplied", "flattened", "reversed"):
        for name in FIELDS:
            assert not np.array_equal(getattr(futures[change], name), getattr(walk, name)), (change, name)
