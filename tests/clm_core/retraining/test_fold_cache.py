"""Models of past folds and their answers in the home: kept by content, bounded in size, never trusted when
damaged."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.backtest.walk_forward import Arrays, OutOfSample, fold_rows, walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.models.contract import Model
from clm_core.retraining.fold_cache import FoldCache
from clm_core.services import Services

FACTS: dict[str, Any] = {"seed": 3}
RECIPE = catalog.recipe(
    ModelType.LIGHTGBM, {"rounds": 5, "min_child_weight": 1, "learning_rate": 0.2, "sizing": "none"}, Costs()
)
PLAN = WalkForwardPlan().for_request(60, 60)


class Counting:
    """A `FitOnce` of a cache that counts the fits."""

    def __init__(self, cache: FoldCache, facts: dict[str, Any] = FACTS) -> None:
        self.fits = 0
        self._fit_once = cache.fit_once(facts, RECIPE)

    def __call__(self, bars: Bars, fit: Callable[[], Model]) -> Model:
        def counted() -> Model:
            self.fits += 1
            return fit()

        model: Model = self._fit_once(bars, counted)
        return model


class CountingAnswers:
    """An `AnswerStore` of a cache that lists what is computed, by name."""

    def __init__(self, cache: FoldCache, facts: dict[str, Any] = FACTS) -> None:
        self.computed: list[str] = []
        self._kept = cache.answers(facts)

    def recall(self, facts: Mapping[str, Any], bars: Sequence[Bars]) -> Arrays | None:
        return self._kept.recall(facts, bars)

    def keep(self, facts: Mapping[str, Any], bars: Sequence[Bars], answers: Arrays) -> None:
        self.computed.append(facts["answers"])
        self._kept.keep(facts, bars, answers)


def walked(cache: FoldCache, bars: Bars) -> tuple[OutOfSample, list[str]]:
    """Walk-forward with a cache, and the names of the answers that were computed."""
    store = CountingAnswers(cache)
    return walk_forward(RECIPE, bars, PLAN, 3, fit_once=Counting(cache), store=store), store.computed


def assert_equal(one: OutOfSample, other: OutOfSample) -> None:
    assert one.returns is not None
    assert other.returns is not None
    for name in ("positions", "forecast"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    for name in ("expected", "quantiles", "levels"):
        assert getattr(one.returns, name).tobytes() == getattr(other.returns, name).tobytes()
    assert one.folds == other.folds


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=90, closed_by=services.clock())


def span(bars: Bars, last_day: int) -> Bars:
    """Sixty days of bars that end with a day."""
    return bars[(last_day - 60) * 24 : last_day * 24]


def test_a_retrain_a_week_later_fits_one_fold_and_leaves_the_past_bitwise_equal(
    bars: Bars, tmp_path: Path
) -> None:
    cache = FoldCache(tmp_path, 100)
    first = Counting(cache)
    second = Counting(cache)
    anew = Counting(FoldCache(tmp_path / "other", 100))
    before = walk_forward(RECIPE, span(bars, 70), PLAN, 3, fit_once=first)
    after = walk_forward(RECIPE, span(bars, 77), PLAN, 3, fit_once=second)
    assert first.fits == len(before.folds) > 3
    assert second.fits == 1

    shift = 7 * 24
    begin = after.rows.start + shift
    assert np.abs(before.positions[begin:]).max() > 0
    assert np.array_equal(before.positions[begin:], after.positions[after.rows.start : -shift])
    # a walk-forward that fits every fold gives the same answers
    alone = walk_forward(RECIPE, span(bars, 77), PLAN, 3, fit_once=anew)
    assert np.array_equal(alone.positions, after.positions)
    assert [fold.train_metrics for fold in alone.folds] == [fold.train_metrics for fold in after.folds]


def test_a_corrected_bar_another_seed_or_other_facts_name_another_entry(bars: Bars, tmp_path: Path) -> None:
    cache = FoldCache(tmp_path, 100)
    walk_forward(RECIPE, span(bars, 70), PLAN, 3, fit_once=Counting(cache))
    row = fold_rows(span(bars, 70).time, PLAN)[2][0].start
    close = span(bars, 70).close.copy()
    close[row] *= 1.0001
    corrected = replace(span(bars, 70), close=close, high=np.maximum(span(bars, 70).high, close))
    again = Counting(cache)
    result = walk_forward(RECIPE, corrected, PLAN, 3, fit_once=again)
    saw = sum(fold.train.start <= row < fold.train.stop for fold in result.folds)
    assert again.fits == saw > 0
    other = Counting(cache, FACTS | {"seed": 4})
    walk_forward(RECIPE, span(bars, 70), PLAN, 4, fit_once=other)
    assert other.fits == len(result.folds)


def test_a_retrain_a_week_later_asks_the_newest_folds_alone_and_every_answer_is_the_same(
    bars: Bars, tmp_path: Path
) -> None:
    cache = FoldCache(tmp_path, 100)
    before, first = walked(cache, span(bars, 70))
    count = len(before.folds)
    assert sorted(first) == ["agreement"] * (count - 1) + ["test rows"] * count
    after, computed = walked(cache, span(bars, 77))
    # the fold cut short by the end of the bars, and a new one with its agreement
    assert sorted(computed) == ["agreement", "test rows", "test rows"]
    assert_equal(after, walk_forward(RECIPE, span(bars, 77), PLAN, 3))
    again, nothing = walked(cache, span(bars, 77))
    assert nothing == []
    assert_equal(again, after)
    # no model is needed for answers that are kept
    once = Counting(FoldCache(tmp_path / "other", 100))
    reported = list[float]()
    store = CountingAnswers(cache)
    kept = walk_forward(RECIPE, span(bars, 77), PLAN, 3, reported.append, fit_once=once, store=store)
    assert (once.fits, store.computed, reported[-1]) == (0, [], 1.0)
    assert_equal(kept, after)


def test_a_corrected_bar_of_a_test_computes_the_answers_of_the_folds_that_saw_it(
    bars: Bars, tmp_path: Path
) -> None:
    cache = FoldCache(tmp_path, 100)
    whole = span(bars, 70)
    before, _ = walked(cache, whole)
    row = before.folds[-1].test.stop - 1
    corrected = replace(whole, volume=np.where(np.arange(len(whole)) == row, 7.0, whole.volume))
    after, computed = walked(cache, corrected)
    assert computed == ["test rows"]
    assert_equal(after, walk_forward(RECIPE, corrected, PLAN, 3))


@pytest.mark.parametrize(
    "damage", ["a changed byte", "a changed head", "cut off", "empty", "of another fold", "a folder"]
)
def test_damaged_answers_and_those_of_another_fold_are_computed_again_and_mended(
    bars: Bars, tmp_path: Path, damage: str
) -> None:
    cache = FoldCache(tmp_path, 100)
    before, _ = walked(cache, span(bars, 70))
    entries = sorted(tmp_path.glob("*.answers"), key=lambda path: -path.stat().st_size)
    entry = entries[0]
    content = entries[0].read_bytes()
    match damage:
        case "a changed byte":
            entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "a changed head":
            entry.write_bytes(content.replace(b'"positions"', b'"forecasts"'))
        case "cut off":
            entry.write_bytes(content[:-8])
        case "empty":
            entry.write_bytes(b"")
        case "of another fold":
            entry.write_bytes(entries[1].read_bytes())
        case _:
            entry.unlink()
            entry.mkdir()
    after, computed = walked(cache, span(bars, 70))
    assert computed == ["test rows"]
    assert_equal(after, before)
    if damage != "a folder":
        assert entry.read_bytes() == content
        assert walked(cache, span(bars, 70))[1] == []


@pytest.mark.parametrize("damage", ["a changed byte", "a missing file", "no bundle at all"])
def test_a_damaged_entry_is_fitted_again_and_mended(bars: Bars, tmp_path: Path, damage: str) -> None:
    cache = FoldCache(tmp_path, 100)
    trained = bars[: 24 * 30]
    once = Counting(cache)
    model = once(trained, lambda: RECIPE.fit(trained, 3))
    [entry] = tmp_path.iterdir()
    match damage:
        case "a changed byte":
            (entry / "model.json").write_text((entry / "model.json").read_text() + " ")
        case "a missing file":
            next(entry.glob("golden*")).unlink()
        case _:
            for path in entry.iterdir():
                path.unlink()
            (entry / "folder").mkdir()
    again = once(trained, lambda: RECIPE.fit(trained, 3))
    assert once.fits == 2
    assert np.array_equal(again.positions(bars), model.positions(bars))
    once(trained, lambda: RECIPE.fit(trained, 3))
    assert once.fits == 2


def test_the_entries_used_least_recently_are_deleted_beyond_the_size(bars: Bars, tmp_path: Path) -> None:
    cache = FoldCache(tmp_path, 1)
    trained = bars[: 24 * 30]
    for number in range(3):
        Counting(cache, {"number": number})(trained, lambda: RECIPE.fit(trained, 3))
    first, second, third = tmp_path.iterdir()
    for path, used in ((first, 1_000), (second, 3_000), (third, 2_000)):
        (path / "padding.json").write_bytes(b"0" * 600_000)
        # after the new file, which changes the time of its folder
        os.utime(path, (used, used))
    answers = tmp_path / "0.answers"
    answers.write_bytes(b"0" * 600_000)
    os.utime(answers, (2_500, 2_500))
    cache.trim()
    assert list(tmp_path.iterdir()) == [second]
    FoldCache(tmp_path / "absent", 1).trim()


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_fit(bars: Bars, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    once = Counting(FoldCache(in_the_way, 100))
    trained = bars[: 24 * 30]
    model = once(trained, lambda: RECIPE.fit(trained, 3))
    assert once.fits == 1
    assert np.array_equal(model.positions(bars), RECIPE.fit(trained, 3).positions(bars))
