"""Corrections of stored bars: causes by name, and histories of fetches, imports and replacements."""

import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clm_core.domain.errors import ConflictError, StoredBarsDiffer
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.corrections import RECHECKED_BARS, compare, table
from clm_core.market.store import SeriesStore, replacement
from clm_core.market.timeframes import Calendar, Timeframe

NOW = datetime(2024, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000_000
START = pd.Timestamp("2021-01-04", tz="UTC").value
N = 120


def cents(n: int = N, seed: int = 1) -> Bars:
    """Daily bars with prices of two decimals, from 2021-01-04."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 2)
    open_ = np.round(close * np.exp(rng.normal(0, 0.002, n)), 2)
    high = np.round(np.maximum(open_, close) * 1.004, 2)
    low = np.round(np.minimum(open_, close) * 0.996, 2)
    volume = np.round(rng.lognormal(12, 0.5, n))
    time = START + np.arange(n) * DAY
    return Bars("TEST", Timeframe.D1, Calendar.ALWAYS, time, open_, high, low, close, volume)


def scaled(bars: Bars, factor: float, rows: slice, volumes: float = 1.0, decimals: int = 2) -> Bars:
    prices = {}
    for name in FIELDS[:4]:
        values = getattr(bars, name).copy()
        values[rows] *= factor
        prices[name] = np.round(values, decimals)
    volume = bars.volume.copy()
    volume[rows] = np.round(volume[rows] * volumes)
    return replace(bars, **prices, volume=volume)


def changed(bars: Bars, field: str, row: int, value: float) -> Bars:
    values = getattr(bars, field).copy()
    values[row] = value
    return replace(bars, **{field: values})


DIVIDEND = "(a dividend or an adjusted download)"


@pytest.mark.parametrize(
    ("new", "cause"),
    [
        pytest.param(
            scaled(cents(), 0.9934, slice(70), decimals=6),
            f"re-adjusted: prices before 2021-03-15 are multiplied by 0.9934 {DIVIDEND}",
            id="dividend",
        ),
        pytest.param(
            scaled(cents(), 0.9934, slice(70)),
            f"re-adjusted: prices before 2021-03-15 are multiplied by 0.9934 {DIVIDEND}",
            id="dividend, rounded to cents",
        ),
        pytest.param(
            scaled(cents(), 0.9962, slice(None), decimals=6),
            f"re-adjusted: prices up to 2021-05-03 are multiplied by 0.9962 {DIVIDEND}",
            id="dividend after the last common bar",
        ),
        pytest.param(
            scaled(scaled(cents(), 0.99, slice(30), decimals=6), 0.995, slice(70), decimals=6),
            f"re-adjusted: prices before 2021-02-03 are multiplied by 0.9851 {DIVIDEND}; re-adjusted: prices "
            f"from 2021-02-03 on, before 2021-03-15, are multiplied by 0.995 {DIVIDEND}",
            id="two dividends",
        ),
        pytest.param(
            changed(scaled(cents(), 0.9934, slice(70)), "close", N - 1, cents().low[-1]),
            f"re-adjusted: prices before 2021-03-15 are multiplied by 0.9934 {DIVIDEND}; 1 more bars differ "
            "otherwise",
            id="dividend and a corrected last bar",
        ),
        pytest.param(
            scaled(cents(), 0.1, slice(70), volumes=10, decimals=3),
            "split 10:1 on 2021-03-15: prices before 2021-03-15 are multiplied by 0.1, volumes by 10",
            id="split",
        ),
        pytest.param(
            scaled(cents(), 0.1, slice(70), decimals=3),
            "split 10:1 on 2021-03-15: prices before 2021-03-15 are multiplied by 0.1, volumes are not",
            id="split of prices only",
        ),
        pytest.param(
            scaled(cents(), 2 / 3, slice(70), volumes=1.5, decimals=4),
            "split 3:2 on 2021-03-15: prices before 2021-03-15 are multiplied by 0.6667, volumes by 1.5",
            id="split 3:2",
        ),
        pytest.param(
            scaled(cents(), 8, slice(70), volumes=1 / 8),
            "split 1:8 on 2021-03-15: prices before 2021-03-15 are multiplied by 8, volumes by 0.125",
            id="reverse split",
        ),
        pytest.param(
            replace(cents(), volume=cents().volume * 100),
            "volumes are multiplied by 100 (another unit)",
            id="unit of the volume",
        ),
        pytest.param(changed(cents(), "volume", 5, 7.0), "only the volume differs", id="volume"),
        pytest.param(changed(cents(), "close", 5, cents().low[5]), "", id="close"),
        pytest.param(scaled(cents(seed=2), 1, slice(None)), "", id="another market"),
        pytest.param(cents(), "", id="nothing"),
    ],
)
def test_the_cause_of_differing_bars_is_named(new, cause):
    assert compare(cents(), new).cause == cause


def test_a_last_bar_stored_while_open_is_recognised():
    bars = cents()
    later = changed(changed(bars, "high", N - 1, bars.high[-1] + 1), "volume", N - 1, bars.volume[-1] + 9)
    assert compare(bars, later).cause == "the bar was probably stored while it was still open"


def test_values_that_differ_in_the_digits_of_float32_are_equal():
    bars = cents()
    noisy = replace(bars, close=bars.close.astype(np.float32).astype(np.float64))
    assert not compare(bars, noisy)


class Histories(RuleBasedStateMachine):
    """A store fed by an exchange that appends and corrects bars, by imports and by replacements."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = SeriesStore(Path(self.folder.name))
        self.truth = cents()
        self.closed = 20
        self.expected = np.empty((0, 5))
        self.states = dict[str, np.ndarray]()

    def teardown(self) -> None:
        self._replace(0, self.closed)
        manifest = self._manifest()
        assert manifest is not None
        assert table(self.store.read(manifest)).tolist() == table(self.truth)[: self.closed].tolist()
        assert manifest.differing == ()
        self.folder.cleanup()

    def _manifest(self):
        return self.store.manifest("TEST", Timeframe.D1)

    def _replace(self, first: int, until: int) -> None:
        manifest = self._manifest()
        stored = self.store.read(manifest)
        span = self.truth.time[first], self.truth.time[until - 1]
        compared = replacement(stored, self.truth[first:until], int(span[0]), int(span[1]))
        self.store.replace(manifest, compared, "replaced", NOW, "tests", "ada")

    @initialize()
    def first_import(self) -> None:
        self.store.add(self.truth[:10], "a file", NOW)
        self.expected = table(self.truth)[:10]

    @rule(bars=st.integers(1, 5))
    def bars_close(self, bars: int) -> None:
        self.closed = min(self.closed + bars, N)

    @rule(back=st.integers(1, 12), factor=st.sampled_from([1.01, 0.9, 2.0]))
    def the_exchange_corrects_a_volume(self, back: int, factor: float) -> None:
        row = max(len(self.expected) - back, 0)
        self.truth = changed(self.truth, "volume", row, round(self.truth.volume[row] * factor) + 1.0)

    @rule(back=st.integers(1, 6), share=st.sampled_from([0.5, 1.0]))
    def the_exchange_corrects_a_close_within_its_range(self, back: int, share: float) -> None:
        row = max(len(self.expected) - back, 0)
        low = self.truth.low[row]
        high = self.truth.high[row]
        self.truth = changed(self.truth, "close", row, round(low + share * (high - low), 2))

    @rule()
    def a_fetch(self) -> None:
        manifest = self._manifest()
        stored = len(self.expected)
        first = stored - RECHECKED_BARS
        self.store.update(
            self.truth[first : self.closed], "exchange", NOW, manifest.snapshots[-1].content_hash
        )
        actual = table(self.truth)[: self.closed]
        self.expected = np.concatenate([self.expected[:first], actual[first:]])

    @rule(first=st.integers(0, N - 5), bars=st.integers(1, 30))
    def an_import(self, first: int, bars: int) -> None:
        first = min(first, len(self.expected))
        until = min(first + bars, self.closed)
        if until <= first:
            return
        part = self.truth[first:until]
        old = self.expected[first:until]
        if (old != table(part)[: len(old)]).any():
            with pytest.raises(StoredBarsDiffer):
                self.store.add(part, "a file", NOW)
            return
        self.store.add(part, "a file", NOW)
        self.expected = np.concatenate([self.expected, table(part)[len(old) :]])

    @rule(first=st.integers(0, N - 5), bars=st.integers(1, 30))
    def a_replacement(self, first: int, bars: int) -> None:
        first = min(first, len(self.expected) - 1)
        until = min(first + bars, len(self.expected))
        self._replace(first, until)
        self.expected = self.expected.copy()
        self.expected[first:until] = table(self.truth)[first:until]

    @invariant()
    @precondition(lambda self: len(self.expected))
    def the_newest_snapshot_is_as_expected_and_every_earlier_one_reads_as_it_was(self) -> None:
        manifest = self._manifest()
        newest = self.store.read(manifest)
        assert table(newest).tolist() == self.expected.tolist()
        self.states.setdefault(newest.content_hash, table(newest))
        assert set(self.states) == {snapshot.content_hash for snapshot in manifest.snapshots}
        for content_hash, values in self.states.items():
            assert table(self.store.read(manifest, content_hash)).tolist() == values.tolist()


Histories.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestHistories = Histories.TestCase


def test_a_bar_that_another_process_has_corrected_meanwhile_stays(tmp_path):
    """An answer of the exchange from before the other's correction arrives last."""
    store = SeriesStore(tmp_path)
    old = cents()
    new = changed(cents(), "volume", 29, 7_000.0)
    base = store.add(old[:30], "exchange", NOW).snapshots[-1].content_hash
    store.update(new[27:31], "exchange", NOW, base)
    manifest = store.update(old[27:32], "exchange", NOW, base)
    assert store.read(manifest).volume[29] == 7_000.0
    assert (manifest.snapshots[-1].bars, manifest.differing) == (32, ())


def test_a_replacement_of_bars_that_have_changed_since_the_preview_is_refused(tmp_path):
    store = SeriesStore(tmp_path)
    manifest = store.add(cents()[:30], "a file", NOW)
    shown = replacement(store.read(manifest), changed(cents(), "volume", 5, 9.0)[:30], None, None)
    store.update(
        changed(cents(), "volume", 29, 7_000.0)[27:31], "exchange", NOW, manifest.snapshots[-1].content_hash
    )
    with pytest.raises(ConflictError, match="run the command again"):
        store.replace(manifest, shown, "a file", NOW, "", "ada")


def test_a_restored_state_is_read_by_its_hash_and_written_once(tmp_path):
    store = SeriesStore(tmp_path)
    first = store.add(cents()[:30], "a file", NOW)
    other = changed(cents(), "volume", 5, 9.0)[:30]
    for bars in (other, cents()[:30]):
        manifest = store.manifest("TEST", Timeframe.D1)
        store.replace(manifest, replacement(store.read(manifest), bars, None, None), "a file", NOW, "", "ada")
    manifest = store.manifest("TEST", Timeframe.D1)
    assert [each.content_hash for each in manifest.snapshots] == [
        cents()[:30].content_hash,
        other.content_hash,
        cents()[:30].content_hash,
    ]
    assert store.read(manifest, first.snapshots[0].content_hash).content_hash == cents()[:30].content_hash
    assert len(list(tmp_path.glob("*/*/*.parquet"))) == 2


def test_a_change_of_the_calendar_leaves_every_earlier_snapshot_readable(tmp_path):
    store = SeriesStore(tmp_path)
    weekdays = cents()
    open_days = np.flatnonzero(weekdays.index.day_of_week < 5)
    bars = replace(weekdays, **{name: getattr(weekdays, name)[open_days] for name in ("time", *FIELDS)})
    manifest = store.add(bars, "a file", NOW)
    closing = replace(bars, calendar=Calendar("XNYS"))
    shown = replacement(store.read(manifest), closing, None, None)
    assert shown.differs
    after = store.replace(manifest, shown, "stored bars", NOW, "", "ada")
    assert store.read(after).calendar == "XNYS"
    assert store.read(after, bars.content_hash).calendar == "24x7"
    [(_, revision)] = after.revisions
    assert revision.cause == "calendar 24x7 -> XNYS"


def corrected_truth() -> Bars:
    bars = cents()
    return replace(bars, volume=np.where(np.arange(N) % 2, bars.volume + 1, bars.volume))


def _fetch_in_steps(root: Path) -> None:
    store = SeriesStore(root)
    for first in range(40, N, 4):
        manifest = store.manifest("TEST", Timeframe.D1)
        assert manifest is not None
        base = manifest.snapshots[-1].content_hash
        store.update(corrected_truth()[first - RECHECKED_BARS : first + 4], "exchange", NOW, base)


def _replace_in_steps(root: Path) -> None:
    store = SeriesStore(root)
    truth = corrected_truth()
    for first in range(0, 37, 2):
        manifest = store.manifest("TEST", Timeframe.D1)
        assert manifest is not None
        span = int(truth.time[first]), int(truth.time[first + 1])
        shown = replacement(store.read(manifest), truth[first : first + 2], *span)
        store.replace(manifest, shown, "a file", NOW, "", "ada")


def test_a_fetch_and_a_replacement_in_two_processes_lose_nothing_of_each_other(tmp_path):
    store = SeriesStore(tmp_path)
    store.add(cents()[:40], "a file", NOW)
    # a forked child of a process that has used numba's threads is ended by them
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=work, args=(tmp_path,)) for work in (_fetch_in_steps, _replace_in_steps)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    manifest = store.manifest("TEST", Timeframe.D1)
    assert store.read(manifest).content_hash == corrected_truth().content_hash
    for snapshot in manifest.snapshots:
        assert store.read(manifest, snapshot.content_hash).content_hash == snapshot.content_hash
