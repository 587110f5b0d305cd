"""Record of a recipe over its retrains: grows by the bars that versions were followed on, by no others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import promoting
import pytest

from clm_core.decisions.checks.evidence import LEAD
from clm_core.decisions.checks.succession import AGREEMENT
from clm_core.domain.actors import Actor
from clm_core.domain.errors import EvidenceMissing, RegistryUnavailable
from clm_core.domain.evaluations import RecordFacts, Verdict
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.validation import Examined
from clm_core.models import bundle, catalog, golden
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.retraining import jobs, steps
from clm_core.retraining.followed_days import followed_days
from clm_core.retraining.results import BacktestEvaluation
from clm_core.retraining.stored_evidence import MarketRuns, unpack
from clm_core.retraining.trained_again import known_then
from clm_core.services import Services

WEEK = 7 * 24
DAY = timedelta(days=1)
ADA = Actor(name="ada", role=Role.ADMIN)


class Recipes:
    """A market of its own with hourly bars that arrive on request, and retrains on it."""

    def __init__(self, services: Services, folder: Path, bars: Bars) -> None:
        self.bars = bars
        self._store = SeriesStore(folder / "data")
        quick = services.settings.training.model_copy(update={"where": TrainingPlace.INLINE})
        self.services = replace(
            services,
            settings=services.settings.model_copy(update={"training": quick}),
            open_market=lambda: MarketData(folder),
        )

    def arrive(self, stop: int) -> None:
        """Store the bars up to a row."""
        self._store.add(self.bars[:stop], "tests", datetime.now(UTC))
        self.services = replace(self.services)

    def retrain(self, **changes: Any) -> tuple[ModelVersion, BacktestEvaluation, RecordFacts]:
        fields: dict[str, Any] = {
            "model_type": ModelType.OTHER,
            "plugin": "ridge",
            "symbol": self.bars.symbol,
            "dataset_span_days": 60,
            "training_params": {"horizon": 6, "threshold": 0.0, "sizing": "none"},
            "requested_by": "tests",
        }
        own = self.services
        job = jobs.open_job(own, RetrainRequest.model_validate(fields | changes))
        with jobs.running(own, job) as lease:
            loaded = steps.fetch_bars(own, job)
            trained = steps.train(own, job, loaded)
            version = steps.register(own, lease, job, loaded, trained)
            evaluation = steps.evaluate_out_of_sample(own, lease, job, loaded, trained)
            verdict = steps.judge(own, lease, version, evaluation)
        assert verdict.record is not None
        return version, evaluation, verdict.record

    def make_champion(self, version: ModelVersion) -> None:
        """Promote the version, whatever its verdict."""
        now = self.services.clock()
        promoting.promote(self.services, version.model_id, version.version, ADA, "tests", now, force=True)

    def verdict(self, version: ModelVersion) -> Verdict:
        return self.services.ledger.evaluation(version.model_id, version.version)[1]

    def stored(self, version: ModelVersion) -> MarketRuns:
        """Positions that the ledger keeps with the version's evaluation."""
        result, _ = self.services.ledger.evaluation(version.model_id, version.version)
        evidence = self.services.ledger.stored_evidence(result.id)
        assert evidence is not None
        [market] = unpack(evidence.content).markets
        return market


NewMarket = Callable[[str], Recipes]


@pytest.fixture
def new_market(services: Services, tmp_path: Path) -> NewMarket:
    bars = services.market.bars("BTCUSD", "1h", days=100, closed_by=services.clock())
    return lambda symbol: Recipes(services, tmp_path / symbol, replace(bars, symbol=symbol))


def test_the_followed_days_of_a_version_are_those_that_the_next_record_adds(new_market: NewMarket) -> None:
    market = new_market("RECFUSD")
    market.arrive(len(market.bars) - 2 * WEEK)
    first, _, _ = market.retrain()
    [alone] = market.services.ledger.trials.newest_judged(first.model_id, 1)
    ended = alone.record.first_day + len(alone.record.daily)
    assert not len(followed_days(market.services, first, ended).days)
    market.arrive(len(market.bars))
    followed = followed_days(market.services, first, ended)
    assert len(followed.days) >= 13
    market.retrain()
    [newest] = market.services.ledger.trials.newest_judged(first.model_id, 1)
    daily = newest.record.daily[followed.days - newest.record.first_day]
    # the version begins flat, where the record goes on with a position; trials sum the returns of a day
    assert np.expm1(followed.growth)[1:] == pytest.approx(daily[1:], abs=1e-3)
    assert np.abs(daily).max() > 1e-2


def test_a_version_that_cannot_be_loaded_has_no_followed_days(new_market: NewMarket) -> None:
    market = new_market("RECGUSD")
    market.arrive(len(market.bars) - WEEK)
    first, _, _ = market.retrain()
    market.arrive(len(market.bars))
    since = int(market.bars.time[-1] // (24 * 3600 * 10**9)) - 4
    assert len(followed_days(market.services, first, since).days) >= 4
    lost = first.model_copy(update={"bundle_digest": "0" * 64})
    assert not len(followed_days(market.services, lost, since).days)


def test_a_refresh_adds_the_bars_its_predecessor_was_followed_on_and_changes_no_other(
    new_market: NewMarket,
) -> None:
    market = new_market("RECAUSD")
    rows = len(market.bars) - 2 * WEEK
    market.arrive(rows)
    first, alone, begun = market.retrain()
    assert (begun.forward_bars, begun.versions) == (0, 0)
    assert begun.walk_forward_until == market.bars[:rows].end.to_pydatetime()

    market.arrive(rows + WEEK)
    second, joined, grown = market.retrain()
    assert second.recipe_digest == first.recipe_digest
    assert (grown.begun, grown.walk_forward_until) == (begun.begun, begun.walk_forward_until)
    assert (grown.forward_bars, grown.versions) == (WEEK, 1)
    assert len(joined.bars) == len(alone.bars) + WEEK
    assert np.array_equal(joined.positions[:-WEEK], alone.positions)

    # the new bars are those of the first version's bundle, not of any fit that knows them
    model = market.services.registry.load(first.model_path, first.bundle_digest)
    known = market.bars[: rows + WEEK]
    followed = model.positions(known[known.row_after(model.trained_on.start - DAY / 1000) :])[-WEEK:]
    assert np.abs(followed).max() > 0
    assert np.array_equal(market.stored(second).positions[0, -WEEK:], followed)

    market.arrive(rows + 2 * WEEK)
    third, _, later = market.retrain()
    assert (later.forward_bars, later.versions) == (2 * WEEK, 2)
    before = market.stored(second)
    after = market.stored(third)
    assert np.array_equal(after.time, market.bars[-len(after.time) :].time)
    assert np.array_equal(after.time[:-WEEK], before.time)
    assert np.array_equal(after.positions[:, :-WEEK], before.positions)


def test_a_retrain_without_new_bars_adds_nothing(new_market: NewMarket) -> None:
    market = new_market("RECBUSD")
    market.arrive(len(market.bars))
    first, alone, _ = market.retrain()
    second, again, record = market.retrain(seed=5)
    assert record.forward_bars == 0
    assert second.recipe_digest == first.recipe_digest
    # another seed is another fit of the same recipe: the record stays
    assert np.array_equal(again.positions, alone.positions)


def test_a_changed_recipe_starts_a_record_of_its_own(new_market: NewMarket) -> None:
    market = new_market("RECCUSD")
    market.arrive(len(market.bars) - WEEK)
    market.retrain()
    market.arrive(len(market.bars))
    changed = {"horizon": 7, "threshold": 0.0, "sizing": "none"}
    _, evaluation, record = market.retrain(training_params=changed)
    assert (record.forward_bars, record.side_by_side) == (0, 1)
    assert record.walk_forward_until == market.bars.end.to_pydatetime()
    assert evaluation.bars.end == market.bars.end
    # the first recipe is followed beside the second from now on
    _, _, grown = market.retrain()
    assert (grown.forward_bars, grown.side_by_side) == (WEEK, 2)


def test_a_corrected_bar_changes_the_walk_forward_from_the_bar_on_and_is_named(new_market: NewMarket) -> None:
    market = new_market("RECDUSD")
    market.arrive(len(market.bars))
    first, _, _ = market.retrain()
    before = market.stored(first)
    row = len(market.bars) - 5 * 24
    close = market.bars.close.copy()
    close[row] = (market.bars.high[row] + 2 * market.bars.low[row]) / 3
    corrected = replace(market.bars, close=close)
    shown = market.services.market.replacement(Examined(corrected, {}, {}))
    market.services.market.replace(shown, "tests", reason="", actor="ada", now=market.services.clock())

    second, _, record = market.retrain()
    assert record.corrected_from == market.bars[row:].start.to_pydatetime()
    assert "bars corrected from" in record.sentence
    after = market.stored(second)
    kept = len(before.time) - 5 * 24
    assert np.array_equal(after.positions[:, :kept], before.positions[:, :kept])
    assert not np.array_equal(after.positions[:, kept:], before.positions[:, kept:])


def test_a_version_that_cannot_be_loaded_is_named_and_the_walk_forward_stands_in(
    new_market: NewMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = new_market("RECEUSD")
    market.arrive(len(market.bars) - WEEK)
    market.retrain()
    market.arrive(len(market.bars))
    monkeypatch.setattr(catalog, "load", _missing)
    second, _, record = market.retrain()
    assert record.problem is not None
    assert "cannot be followed" in record.sentence
    assert len(market.stored(second).time) > WEEK


def _missing(folder: object, card: object) -> Any:
    from clm_core.domain.errors import PluginMissing

    raise PluginMissing("the plug-in is not installed: pip install it")


def folder_of(market: Recipes, version: ModelVersion) -> Path:
    """Files of a version in the artifact store."""
    client = market.services.registry.client
    source = client.get_model_version(version.model_id, str(version.mlflow_version)).source
    location = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    return Path(location.removeprefix("file://")) / "artifacts" / "bundle"


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def damage(folder: Path) -> None:
    [weights] = folder.glob("ridge*.json")
    weights.write_bytes(weights.read_bytes() + b" ")


@pytest.mark.parametrize("lose", [delete, damage])
def test_a_lost_bundle_is_trained_again_to_the_same_bytes_and_the_record_is_the_same(
    lose: Callable[[Path], None], new_market: NewMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = new_market(f"REC{lose.__name__.upper()}USD")
    rows = len(market.bars) - WEEK
    market.arrive(rows)
    first, _, _ = market.retrain()
    model = market.services.registry.load(first.model_path, first.bundle_digest)
    lose(folder_of(market, first))
    market.arrive(len(market.bars))
    # a library of another release that fits the same model
    installed = bundle.installed_libraries
    monkeypatch.setattr(bundle, "installed_libraries", lambda of: dict.fromkeys(installed(of), "99.0"))
    second, _, record = market.retrain()
    known = market.bars[market.bars.row_after(model.trained_on.start - DAY / 1000) :]
    assert np.array_equal(market.stored(second).positions[0, -WEEK:], model.positions(known)[-WEEK:])
    assert record.problem is not None
    assert f"clm restore-version {first.model_id} {first.version}" in record.problem
    # the next retrain follows the second version
    assert market.retrain()[2].problem is None


def test_a_lost_bundle_that_cannot_be_trained_again_refuses_the_retrain_while_bars_belong_to_it(
    new_market: NewMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = new_market("RECFUSD")
    market.arrive(len(market.bars) - WEEK)
    first, _, before = market.retrain()
    shutil.rmtree(folder_of(market, first))
    # no bar belongs to the lost version yet
    again, _, record = market.retrain()
    assert (record.forward_bars, record.problem) == (before.forward_bars, None)
    shutil.rmtree(folder_of(market, again))
    market.arrive(len(market.bars))
    # another release that records other answers
    rows_of = golden.rows_of
    monkeypatch.setattr(golden, "rows_of", lambda model: rows_of(model) + 1)
    with pytest.raises(EvidenceMissing, match=f"{again.version} is lost") as refused:
        market.retrain()
    assert f"The {WEEK} bars since its training belong to it" in str(refused.value)
    assert "clm restore-version" in str(refused.value)


def test_a_lost_bundle_of_the_champion_is_trained_again_for_the_comparison(new_market: NewMarket) -> None:
    market = new_market("RECHUSD")
    market.arrive(len(market.bars))
    first, _, _ = market.retrain()
    market.make_champion(first)
    stored = market.verdict(market.retrain()[0])
    shutil.rmtree(folder_of(market, first))
    lost = market.verdict(market.retrain()[0])
    [before, after] = [
        next(check for check in verdict.checks if check.name == AGREEMENT) for verdict in (stored, lost)
    ]
    assert after.value == before.value > 0.0
    assert any(f"clm restore-version {first.model_id} {first.version}" in each for each in lost.warnings)


def test_a_retrain_beside_a_champion_that_cannot_be_trained_again_ends_and_is_not_promoted(
    new_market: NewMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = new_market("RECIUSD")
    market.arrive(len(market.bars))
    first, _, _ = market.retrain()
    market.make_champion(first)
    shutil.rmtree(folder_of(market, first))
    # another release that records other answers
    rows_of = golden.rows_of
    monkeypatch.setattr(golden, "rows_of", lambda model: rows_of(model) + 1)
    verdict = market.verdict(market.retrain()[0])
    assert {LEAD, AGREEMENT} <= {check.name for check in verdict.missed}
    assert f"cannot be compared with champion {first.version}: the bundle" in " ".join(verdict.reasons)


def test_an_outage_of_mlflow_is_no_loss(new_market: NewMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    market = new_market("RECGUSD")
    market.arrive(len(market.bars) - WEEK)
    market.retrain()
    market.arrive(len(market.bars))

    def away(*arguments: Any) -> Any:
        raise RegistryUnavailable("MLflow is away")

    monkeypatch.setattr(MLflowRegistry, "fetched", away)
    monkeypatch.setattr(MLflowRegistry, "require_reachable", away)
    with pytest.raises(RegistryUnavailable, match="is away"):
        market.retrain()


def test_parameters_are_written_as_they_were_recorded_without_those_that_are_new() -> None:
    now = {"horizon": 6, "sizing": {"target": 0.2, "later": None}, "later": 1}
    assert known_then(now, {"sizing": {"target": 0.1}, "horizon": 5, "former": 2}) == {
        "horizon": 5,
        "sizing": {"target": 0.1},
    }
