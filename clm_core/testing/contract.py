"""Contract tests: the properties every model must have, for kinds of CLM and of plug-ins alike.

class TestRidge(ModelContract):
    cases = {"ridge": {"horizon": 6}}
"""

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import FeatureMismatch, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.features import MONDAY
from clm_core.market.look_ahead import first_leak
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Calendar, Timeframe, in_weekend
from clm_core.models import golden
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.catalog import recipe, tolerance
from clm_core.models.contract import (
    Composite,
    ExpectsReturns,
    ForecastsQuantiles,
    Model,
    ReadsFeatures,
    Recipe,
    require_bars_needed,
)
from clm_core.models.plugins import measure
from clm_core.models.sizing import unsized_model, unsized_recipe
from clm_core.testing.tick_walks import mirror_image, tick_walk

SEED = 7
FIT_AND_SAVE = """
from clm_core.platform.garbage_collection import collect_garbage_rarely

collect_garbage_rarely()
import json, sys
from pathlib import Path
import numpy as np
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.bundle import save_bundle
from clm_core.testing.contract import recipe_of

folder, cases, seed = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
bars = Bars("BTCUSD", Timeframe(sys.argv[4]), Calendar.ALWAYS, **np.load(folder / "bars.npz"))
for kind, params in cases.items():
    fitting = recipe_of(kind, params)
    save_bundle(fitting.fit(bars, seed), fitting, folder / kind, bars)
"""


@dataclass(frozen=True)
class Fitted:
    """A model fitted by the contract tests, with the recipe and the reported progress."""

    kind: str
    recipe: Recipe
    params: Mapping[str, Any]
    model: Model
    progress: list[float]


def recipe_of(kind: str, params: Mapping[str, Any]) -> Recipe:
    """Recipe of a model type or, by name, of a plug-in, with default costs."""
    if kind in list(ModelType):
        return recipe(ModelType(kind), params, Costs())
    return recipe(ModelType.OTHER, params, Costs(), plugin=kind)


def first_row_after_a_weekend(bars: Bars) -> int:
    """First row after row 1000 that follows at least a day without bars."""
    pauses = np.flatnonzero(np.diff(bars.time) > Timeframe.D1.nanoseconds) + 1
    return int(pauses[pauses > 1000][0])


def at_timeframe(bars: Bars, timeframe: Timeframe) -> Bars:
    """The same prices as bars of another length, one after the other from the Monday before the first bar."""
    if timeframe is bars.timeframe:
        return bars
    week = 7 * Timeframe.D1.nanoseconds
    monday = bars.time[0] - (bars.time[0] + MONDAY * 60_000_000_000) % week
    slots = monday + np.arange(2 * len(bars)) * timeframe.nanoseconds
    if bars.calendar == Calendar.WEEKDAYS:
        slots = slots[~in_weekend(slots, timeframe)]
    return replace(bars, timeframe=timeframe, time=slots[: len(bars)])


class ModelContract:
    """Base class of contract tests: derive a class collected by pytest, with the kinds to test in `cases`."""

    cases: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Training parameters by model type or name of a plug-in, to fit a model on 3,000 bars in seconds."""
    without_forecast: ClassVar[frozenset[str]] = frozenset()
    """Kinds that take positions without forecasting."""
    on_walks: ClassVar[Mapping[str, Any]] = {}
    """Training parameters for the driftless walks, in place of those of `cases`, where a kind has them."""
    walks: ClassVar[tuple[tuple[float, int], ...]] = ((0.0, 24), (0.5, 4), (0.8, 1))
    """Driftless walks: probability of a step of 0, and `horizon` where a kind has one."""
    timeframe: ClassVar[Timeframe] = Timeframe.H1
    """Length of the bars; longer bars repeat the hourly prices, for kinds with a look-back of months."""

    @classmethod
    def prepared(cls, bars: Bars) -> Bars:
        """Bars of the tests as the kinds need them; unchanged by default."""
        return bars

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "fitted" in metafunc.fixturenames:
            metafunc.parametrize("fitted", list(self.cases), indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def bars(cls, tmp_path_factory: pytest.TempPathFactory) -> Bars:
        """3,000 bundled bars of BTCUSD, less 30 before row 1500: an outage."""
        whole = MarketData(tmp_path_factory.mktemp("home")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
        keep = np.r_[0:1500, 1530:3000]
        whole = at_timeframe(whole, cls.timeframe)
        kept = replace(whole, **{name: getattr(whole, name)[keep] for name in ("time", *FIELDS)})
        return cls.prepared(kept)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, request: pytest.FixtureRequest, bars: Bars) -> Fitted:
        kind = request.param
        progress = list[float]()
        fitting = recipe_of(kind, cls.cases[kind])
        return Fitted(kind, fitting, cls.cases[kind], fitting.fit(bars, SEED, progress.append), progress)

    @pytest.fixture(scope="class")
    @classmethod
    def closing(cls, tmp_path_factory: pytest.TempPathFactory) -> Bars:
        """3,000 bundled bars of EURUSD, which closes at weekends, less 3 bars before row 1400 (carried
        through) and 30 before row 2000 (an outage)."""
        whole = MarketData(tmp_path_factory.mktemp("home")).bars("EURUSD", "1h", closed_by=datetime.now(UTC))
        keep = np.r_[0:1400, 1403:2003, 2033:3033]
        whole = at_timeframe(whole, cls.timeframe)
        kept = replace(whole, **{name: getattr(whole, name)[keep] for name in ("time", *FIELDS)})
        return cls.prepared(kept)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted_on_closing(cls, fitted: Fitted, closing: Bars) -> Model:
        """A model of the same recipe, fitted on the market that closes."""
        return fitted.recipe.fit(closing, SEED)

    @pytest.fixture(scope="class")
    @classmethod
    def elsewhere(cls, bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Folder of bundles of the same models, fitted by another process."""
        folder = tmp_path_factory.mktemp("elsewhere")
        known = [name for name in ("regime", "regime_fits") if getattr(bars, name) is not None]
        np.savez(folder / "bars.npz", **{name: getattr(bars, name) for name in ("time", *FIELDS, *known)})
        cases = json.dumps(dict(cls.cases))
        arguments = [str(folder), cases, str(SEED), cls.timeframe.value]
        subprocess.run([sys.executable, "-c", FIT_AND_SAVE, *arguments], check=True)
        return folder

    @pytest.fixture
    def bundle(self, fitted: Fitted, bars: Bars, tmp_path: Path) -> tuple[Path, str]:
        folder = tmp_path / "bundle"
        return folder, save_bundle(fitted.model, fitted.recipe, folder, bars)

    @pytest.mark.parametrize(
        "rows", [[900], [1498, 1501], [2600]], ids=["early", "around the outage", "late"]
    )
    def test_no_position_and_no_forecast_uses_a_later_bar(
        self, fitted: Fitted, bars: Bars, rows: list[int]
    ) -> None:
        assert first_leak(fitted.model.positions, bars, rows) is None
        assert first_leak(fitted.model.forecast, bars, rows) is None

    def test_no_expected_return_and_no_quantile_uses_a_later_bar(self, fitted: Fitted, bars: Bars) -> None:
        model = unsized_model(fitted.model)
        if isinstance(model, ExpectsReturns):
            assert first_leak(model.expected_return, bars, [1498]) is None
        if isinstance(model, ForecastsQuantiles):
            assert first_leak(lambda given: model.quantiles(given)[:, 0], bars, [1498]) is None

    def test_closures_and_short_outages_cost_no_look_back_and_a_long_outage_does(
        self, fitted: Fitted, fitted_on_closing: Model, closing: Bars
    ) -> None:
        weekend = first_row_after_a_weekend(closing)
        forecast = fitted_on_closing.forecast(closing)
        positions = fitted_on_closing.positions(closing)
        assert np.flatnonzero(closing.bridged).tolist() == [1400]
        assert [rows.start for rows in closing.stretches()] == [0, 2000]
        assert np.isnan(forecast[2000])
        assert positions[2000] == 0
        if fitted.kind not in self.without_forecast:
            assert not np.isnan(forecast[[weekend, 1400]]).any()
            # the forecasts of the whole stretch were never interrupted
            first = int(np.argmax(~np.isnan(forecast)))
            assert not np.isnan(forecast[first:2000]).any()

    def test_no_answer_uses_a_later_bar_over_closures_and_outages(
        self, fitted_on_closing: Model, closing: Bars
    ) -> None:
        rows = [first_row_after_a_weekend(closing) - 1, 1399, 1400, 1999]
        assert first_leak(fitted_on_closing.positions, closing, rows) is None
        assert first_leak(fitted_on_closing.forecast, closing, rows) is None

    def test_a_model_keeps_the_gap_rules_of_its_training(self, fitted: Fitted, closing: Bars) -> None:
        """A model of release 0.1.0, rules 1, treats every outage as the end of a stretch."""
        old = fitted.recipe.fit(closing.under(gap_rules=1), SEED)
        assert old.trained_on.gap_rules == 1
        for given in (closing, closing.under(gap_rules=1)):
            assert np.isnan(old.forecast(given)[1400])
            assert old.positions(given)[1400] == 0
        assert np.array_equal(old.positions(closing), old.positions(closing.under(gap_rules=1)))

    def test_positions_are_a_finite_value_per_bar_from_minus_one_to_one_and_vary(
        self, fitted: Fitted, bars: Bars
    ) -> None:
        positions = fitted.model.positions(bars)
        assert positions.shape == (len(bars),)
        assert positions.dtype == np.float64
        assert np.all(np.abs(positions) <= 1)
        assert len(np.unique(positions)) > 1

    def test_a_forecast_is_a_probability_and_rows_without_a_forecast_take_no_position(
        self, fitted: Fitted, bars: Bars
    ) -> None:
        forecast = fitted.model.forecast(bars)
        positions = fitted.model.positions(bars)
        known = ~np.isnan(forecast)
        assert forecast.shape == (len(bars),)
        assert np.all((forecast[known] >= 0) & (forecast[known] <= 1))
        for first in (0, 1500):
            assert not known[first]
            assert positions[first] == 0
        if fitted.kind not in self.without_forecast:
            assert known.any()
            assert np.all(positions[~known] == 0)

    def test_the_bars_needed_give_the_answers_of_all_history(self, fitted: Fitted, bars: Bars) -> None:
        """Serving refuses fewer bars and promises the same answer for any number beyond."""
        model = fitted.model
        # a plug-in that does not state the number has it measured
        needed = model.bars_needed or measure(model, bars, 1)
        positions = model.positions(bars)
        forecast = model.forecast(bars)
        allowed = tolerance(model)
        with pytest.raises(NotEnoughBars, match=f"at least {needed:,} closed bars; there are {needed - 1:,}"):
            require_bars_needed(model, needed - 1, "predict()")
        # the second end lies behind the outage, in which every answer is the same
        for end in (len(bars), 1_500 + 400):
            for count in range(needed, needed + 201, 10):
                window = bars[max(0, end - count) : end]
                last = [model.positions(window)[-1], model.forecast(window)[-1]]
                expected = [positions[end - 1], forecast[end - 1]]
                np.testing.assert_allclose(last, expected, rtol=0, atol=allowed, err_msg=f"{count} bars")

    def test_a_driftless_walk_and_its_mirror_image_are_traded_in_opposite_directions(
        self, fitted: Fitted
    ) -> None:
        """The mean positions of both add up to about 0: no direction is preferred, least of all by ties.

        A fit on one walk is noisy, so the mean of six sums is compared with their own spread: by more than
        four standard errors and 0.05 it differs from 0 only by a preference.
        """
        if isinstance(unsized_recipe(fitted.recipe), Composite):
            pytest.skip("the members are tested by themselves")
        sums = []
        for seed in range(6):
            standstill, horizon = self.walks[seed % len(self.walks)]
            changes = {"horizon": horizon, **self.on_walks}
            described = fitted.recipe.describe()
            params = {**fitted.params, **{name: changes[name] for name in changes if name in described}}
            walk = tick_walk(2_000, standstill, seed, self.timeframe)
            means = [
                recipe_of(fitted.kind, params).fit(prices, SEED + seed).positions(prices).mean()
                for prices in (walk, mirror_image(walk))
            ]
            sums.append(sum(means))
        error = np.std(sums, ddof=1) / np.sqrt(len(sums))
        assert abs(np.mean(sums)) <= 4 * error + 0.05, sums

    def test_bars_too_few_for_any_look_back_give_no_position(self, fitted: Fitted, bars: Bars) -> None:
        for count in (0, 1, 20):
            assert np.array_equal(fitted.model.positions(bars[:count]), np.zeros(count))

    def test_the_same_bars_and_seed_give_the_same_positions(self, fitted: Fitted, bars: Bars) -> None:
        again = fitted.recipe.fit(bars, SEED)
        assert np.array_equal(again.positions(bars), fitted.model.positions(bars))

    def test_another_process_fits_the_same_model(self, fitted: Fitted, bars: Bars, elsewhere: Path) -> None:
        other = load_bundle(elsewhere / fitted.kind)
        assert np.array_equal(other.positions(bars), fitted.model.positions(bars))

    def test_threads_may_share_a_model(self, fitted: Fitted, bars: Bars) -> None:
        alone = fitted.model.positions(bars)
        with ThreadPoolExecutor(4) as pool:
            assert all(
                np.array_equal(shared, alone) for shared in pool.map(fitted.model.positions, [bars] * 8)
            )

    def test_a_saved_model_comes_back_the_same_without_pickle(
        self, fitted: Fitted, bars: Bars, bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("pickle was used to load a bundle")

        for name in ("load", "loads", "Unpickler", "_Unpickler"):
            monkeypatch.setattr(pickle, name, refuse)
        loaded = load_bundle(*bundle)
        assert np.array_equal(loaded.positions(bars), fitted.model.positions(bars))
        assert np.array_equal(loaded.forecast(bars), fitted.model.forecast(bars), equal_nan=True)
        assert loaded.model_type is fitted.model.model_type
        assert loaded.trained_on == fitted.model.trained_on
        assert loaded.train_metrics == fitted.model.train_metrics
        assert loaded.importances() == fitted.model.importances()

    def test_a_loaded_model_saves_as_the_same_bundle(
        self, fitted: Fitted, bars: Bars, bundle: tuple[Path, str], tmp_path: Path
    ) -> None:
        folder, digest = bundle
        assert save_bundle(load_bundle(folder), fitted.recipe, tmp_path / "again", bars) == digest

    def test_a_loaded_model_gives_the_golden_answers(self, bundle: tuple[Path, str]) -> None:
        golden.preflight(load_bundle(*bundle), bundle[0])

    @pytest.mark.parametrize(
        "other",
        [{"symbol": "ETHUSD"}, {"timeframe": Timeframe.D1}, {"calendar": Calendar.WEEKDAYS}],
        ids=["symbol", "timeframe", "calendar"],
    )
    def test_bars_of_another_series_are_refused(
        self, fitted: Fitted, bars: Bars, other: dict[str, Any]
    ) -> None:
        foreign = replace(bars, **other)
        series = f"BTCUSD {self.timeframe} 24x7"
        with pytest.raises(FeatureMismatch, match=series):
            fitted.model.positions(foreign)
        with pytest.raises(FeatureMismatch, match=series):
            fitted.model.forecast(foreign)

    @pytest.mark.parametrize("count", [1, 100, 300])
    def test_too_few_bars_are_refused_before_training(self, fitted: Fitted, bars: Bars, count: int) -> None:
        with pytest.raises(NotEnoughBars):
            fitted.recipe.fit(bars[:count], SEED)

    def test_progress_only_rises_and_ends_at_one(self, fitted: Fitted) -> None:
        assert fitted.progress == sorted(fitted.progress)
        assert fitted.progress[-1] == 1.0

    def test_importances_are_shares_of_one_whole(self, fitted: Fitted) -> None:
        importances = fitted.model.importances()
        assert not importances or sum(importances.values()) == pytest.approx(1)
        assert all(share > 0 for share in importances.values())

    def test_inputs_that_stay_the_same_leave_the_positions_as_they_are(
        self, fitted: Fitted, bars: Bars
    ) -> None:
        """For a model that offers its inputs, so that permutation importance can tell what it relies on."""
        inner = unsized_model(fitted.model)
        if not isinstance(inner, ReadsFeatures):
            pytest.skip("the model offers no inputs to change")
        widths = list[int]()

        def same(values: Floats) -> Floats:
            widths.append(values.shape[1])
            return values

        unchanged = inner.with_changed_inputs(same).positions(bars)
        assert np.allclose(unchanged, inner.positions(bars), 0.0, 1e-5)
        assert set(widths) == {len(inner.inputs)}

    def test_the_recorded_provenance_is_that_of_the_training_bars(self, fitted: Fitted, bars: Bars) -> None:
        trained_on = fitted.model.trained_on
        assert trained_on.data_hash == bars.content_hash
        assert (trained_on.bars, trained_on.seed) == (len(bars), SEED)

    def test_every_parameter_is_described_and_describes_the_same_recipe(self, fitted: Fitted) -> None:
        described = json.loads(json.dumps(fitted.recipe.describe()))
        assert fitted.params.items() <= described.items()
        assert recipe_of(fitted.kind, described) == fitted.recipe
