"""Reproduction of versions from their lineage, on a real ledger and a real MLflow."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.costs import Costs
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.validation import Examined
from clm_core.models import catalog
from clm_core.models.contract import Model, ModelCard, TrainedOn
from clm_core.retraining import jobs, steps
from clm_core.retraining import reproduce as reproducing
from clm_core.retraining.reproduce import Difference, reproduce
from clm_core.services import Services

TREES = [ModelType.XGBOOST, ModelType.LIGHTGBM]


@pytest.fixture(scope="module", params=TREES, ids=str)
def version(request: pytest.FixtureRequest, services: Services) -> ModelVersion:
    retrain_request = RetrainRequest(
        model_type=request.param,
        symbol="EURUSD",
        dataset_span_days=90,
        training_params={"rounds": 20},
        seed=3,
        requested_by="tests",
    )
    job = jobs.open_job(services, retrain_request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        return steps.register(services, lease, job, bars, steps.train(services, job, bars))


@pytest.mark.parametrize("span", [5, 10_000], ids=["the newest days", "the whole series"])
def test_a_job_reads_the_same_bars_after_newer_bars_arrived(
    services: Services, tmp_path: Path, span: int
) -> None:
    whole = services.market.bars("EURUSD", "1h", closed_by=services.clock())
    store = SeriesStore(tmp_path / "data")
    store.add(whole[:-24], "tests", services.clock())
    own = replace(services, open_market=lambda: MarketData(tmp_path))
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM, symbol="EURUSD", dataset_span_days=span, requested_by="tests"
    )
    job = jobs.new_job(own, request)
    before = steps.fetch_bars(own, job)
    store.add(whole, "tests", services.clock())
    after = steps.fetch_bars(replace(own, clock=lambda: services.clock() + timedelta(days=1)), job)
    assert after.content_hash == before.content_hash
    assert before.end == whole[:-24].end


def test_a_job_trains_the_same_model_after_its_bars_were_corrected(
    services: Services, tmp_path: Path
) -> None:
    bars = services.market.bars("EURUSD", "1h", days=60, closed_by=services.clock())
    SeriesStore(tmp_path / "data").add(bars, "tests", services.clock())
    own = replace(services, open_market=lambda: MarketData(tmp_path))
    request = RetrainRequest(model_type=ModelType.LIGHTGBM, symbol="EURUSD", requested_by="tests")
    job = jobs.new_job(own, request)
    before = steps.fetch_bars(own, job)
    corrected = replace(bars, close=(bars.high + bars.low) / 2)
    shown = own.market.replacement(Examined(corrected, {}, {}))
    own.market.replace(shown, "tests", reason="", actor="ada", now=services.clock())
    after = steps.fetch_bars(own, job)
    assert own.market.newest("EURUSD", "1h").content_hash == corrected.content_hash
    assert after.content_hash == before.content_hash
    recipe = catalog.recipe(ModelType.LIGHTGBM, {"rounds": 5}, Costs())
    positions = [recipe.fit(each, seed=1).positions(bars) for each in (before, after)]
    assert positions[0].tobytes() == positions[1].tobytes()


def test_a_job_created_at_a_past_moment_uses_no_bar_that_closed_later(services: Services) -> None:
    moment = datetime(2017, 6, 1, 12, 30, tzinfo=UTC)
    replayed = replace(services, clock=lambda: moment)
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM, symbol="EURUSD", dataset_span_days=30, requested_by="tests"
    )
    job = jobs.new_job(replayed, request)
    bars = steps.fetch_bars(services, job)
    assert f"{bars.end:%Y-%m-%d %H:%M}" == "2017-06-01 11:00"
    assert job.data_snapshot == services.market.newest("EURUSD", "1h").content_hash


@dataclass(frozen=True)
class ConstantModel:
    """A model with the same position on every bar, without the rest of the model contract."""

    model_type: ModelType
    position: float

    def positions(self, bars: Bars) -> Floats:
        return np.full(len(bars), self.position)


@pytest.mark.parametrize(
    ("kind", "distance", "differing"),
    [
        (ModelType.LIGHTGBM, 1e-15, True),
        (ModelType.NHITS, 9e-6, False),
        (ModelType.NHITS, 2e-5, True),
        (ModelType.RL_V3, 9e-6, False),
    ],
    ids=["trees are exact", "a network within its tolerance", "a network beyond it", "a policy within its"],
)
def test_the_tolerated_distance_of_positions_depends_on_the_kind_of_model(
    kind: ModelType, distance: float, differing: bool, services: Services
) -> None:
    bars = services.market.bars("EURUSD", "1h", days=5, closed_by=services.clock())
    one = ConstantModel(kind, 0.0)
    other = ConstantModel(kind, distance)
    comparison = reproducing.compare(cast(Model, one), cast(Model, other), bars)
    assert (comparison.differing == len(bars)) is differing
    assert comparison.largest == distance


def test_a_training_on_a_gpu_differs_from_a_training_on_the_processor(services: Services) -> None:
    bars = services.market.bars("EURUSD", "1h", days=5, closed_by=services.clock())
    on_gpu, on_processor = (
        ModelCard(
            model_type=ModelType.NHITS,
            params={"device": "auto"},
            trained_on=TrainedOn.of(bars, seed=0),
            train_metrics={"gpu": gpu, "trust": gpu / 2},
            libraries={"continuous-learning-manager": "1.0"},
        )
        for gpu in (1.0, 0.0)
    )
    differences = reproducing.differences(on_gpu, on_processor)
    assert differences == [Difference("device", "GPU", "processor")]


@pytest.fixture
def lineage(version: ModelVersion, services: Services) -> Iterator[Any]:
    """Function to change the version's job in the ledger; the original values are restored afterwards."""
    before = services.ledger.job(version.training_job_id)
    engine = create_engine(services.database.url("ledger"))

    def change(**columns: object) -> None:
        with engine.begin() as connection:
            for name, value in columns.items():
                connection.execute(
                    text(f"UPDATE training_jobs SET {name} = :value WHERE id = :id"),
                    {"value": value, "id": before.id},
                )

    yield change
    change(seed=before.seed, training_params=json.dumps(before.training_params))
    engine.dispose()


def test_the_same_data_parameters_and_seed_give_the_same_position_on_every_bar(
    version: ModelVersion, services: Services
) -> None:
    reproduction = reproduce(services, version)
    assert reproduction.reproduced
    assert reproduction.differences == ()
    assert (reproduction.positions.bars, reproduction.positions.differing, reproduction.positions.first) == (
        1545,
        0,
        None,
    )


@pytest.mark.parametrize(
    ("columns", "difference"),
    [
        ({"seed": 4}, Difference("seed", "3", "4")),
        (
            {"training_params": '{"rounds": 21, "learning_rate": 0.1}'},
            Difference("parameter rounds", "20", "21"),
        ),
    ],
    ids=["seed", "parameters"],
)
def test_a_changed_lineage_gives_other_positions_and_is_named(
    columns: dict[str, object],
    difference: Difference,
    version: ModelVersion,
    services: Services,
    lineage: Any,
) -> None:
    lineage(**columns)
    reproduction = reproduce(services, version)
    assert difference in reproduction.differences
    assert not reproduction.reproduced
    assert reproduction.positions.differing > 0
    assert reproduction.positions.largest > 0


def test_another_code_version_is_reported_but_reproduces_with_equal_positions(
    version: ModelVersion, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproducing, "code_version", lambda: "9.9.9")
    reproduction = reproduce(services, version)
    assert reproduction.differences == (Difference("code", version.code_version, "9.9.9"),)
    assert reproduction.reproduced


def test_the_command_reports_as_text_and_json_and_exits_with_1_when_positions_differ(
    version: ModelVersion, services: Services, lineage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    name = f"{version.model_id}@{version.version}"
    same = CliRunner().invoke(app, ["reproduce", name])
    assert (same.exit_code, same.output) == (0, "Reproduced: the same position on all 1,545 bars.\n")
    lineage(seed=4)
    other = CliRunner().invoke(app, ["reproduce", name])
    assert other.exit_code == 1
    assert "Not reproduced: other positions on" in other.output
    answer = CliRunner().invoke(app, ["reproduce", name, "--json"])
    assert answer.exit_code == 1
    report = json.loads(answer.output)
    assert report["reproduced"] is False
    assert report["differences"] == [{"what": "seed", "then": "3", "now": "4"}]
