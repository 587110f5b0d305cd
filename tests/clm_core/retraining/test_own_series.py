"""Own series from the request to serving: read again by hash, watched, shadowed, and required."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from clm_core.domain.costs import MarketCosts
from clm_core.domain.errors import DataError, InvalidSeries, SeriesMissing, UnknownSeries
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.ledger.audit_log import entries
from clm_core.lifecycle import watch
from clm_core.lifecycle.drift_watch import feature_drift
from clm_core.lifecycle.paper_record import positions_from
from clm_core.market import feature_files
from clm_core.market.bars import Bars
from clm_core.market.series import KnownSeries
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.models import catalog, golden
from clm_core.models.bundle import load_bundle, read_card, save_bundle
from clm_core.retraining import jobs, steps, training
from clm_core.retraining.reproduce import reproduce
from clm_core.services import Services
from clm_core.serving import load

DAY = 86_400_000_000_000
FEATURES = ["series.tone", "tone_and_range", "volatility_24"]
CODE = """
import numpy as np
from clm_core.market.own_features import feature

@feature(warm_up=0, series=["tone"])
def tone_and_range(bars, series):
    return series["tone"] * np.log(bars.high / bars.low)
"""
MODEL = "lightgbm_eurusd_1h"


def tone(bars: Bars, value: float = 1.0, delay: int = DAY // 4) -> KnownSeries:
    """A value a day, in the last quarter of the bars multiplied by `value`."""
    time = np.arange(int(bars.time[0]), int(bars.time[-1]) - DAY, DAY)
    values = np.sin(np.arange(len(time)) / 3.0)
    values[3 * len(time) // 4 :] *= value
    return KnownSeries.of("tone", time, time + delay, values)


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("EURUSD", "1h", days=150, closed_by=services.clock())


@pytest.fixture
def own(services: Services, bars: Bars, tmp_path: Path) -> Iterator[Services]:
    """Services with a market of bars and a series, and a file with a feature of the series."""
    (tmp_path / "mine.py").write_text(CODE)
    SeriesStore(tmp_path / "data").add(bars[:-200], "tests", datetime.now(UTC))
    market = MarketData(tmp_path)
    market.own_series.add(tone(bars[:-200]), None, "tone.csv", datetime.now(UTC))
    with feature_files.use([tmp_path / "mine.py"]):
        yield replace(services, open_market=lambda: MarketData(tmp_path))


def a_request(**changes: Any) -> RetrainRequest:
    fields: dict[str, Any] = {
        "model_type": ModelType.LIGHTGBM,
        "symbol": "EURUSD",
        "dataset_span_days": 120,
        "training_params": {"rounds": 20, "horizon": 6, "threshold": 0, "features": ",".join(FEATURES)},
        "requested_by": "tests",
    }
    return RetrainRequest.model_validate(fields | changes)


def register(services: Services, request: RetrainRequest) -> ModelVersion:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        return steps.register(services, lease, job, bars, steps.train(services, job, bars))


def test_a_job_records_the_state_of_its_series_and_reads_the_same_values_later(
    own: Services, bars: Bars
) -> None:
    job = jobs.open_job(own, a_request())
    before = steps.fetch_bars(own, job)
    later = tone(bars[:-200], value=3.0, delay=DAY // 3)
    own.market.own_series.add(later, None, "later.csv", datetime.now(UTC))

    recorded = own.ledger.job(job.id)
    assert list(recorded.series) == ["tone"]
    assert recorded.series["tone"] != own.market.newest_series(["tone"], "EURUSD")["tone"]
    assert steps.fetch_bars(own, recorded).content_hash == before.content_hash
    assert "tone" in before.series
    created = [each for each in entries(own.ledger._engine) if each.subject == str(job.id)]
    assert created[0].details["series"] == recorded.series


def test_a_job_without_series_has_bars_of_the_former_hash(own: Services) -> None:
    job = jobs.new_job(own, a_request(training_params={"rounds": 2}))
    fetched = steps.fetch_bars(own, job)

    assert job.series == {}
    assert fetched.series == {}
    assert fetched.content_hash == replace(fetched, series={}).content_hash


def test_a_request_for_a_series_that_is_not_stored_is_refused_with_the_command(own: Services) -> None:
    params = {"rounds": 2, "features": ["series.rate"]}
    with pytest.raises(
        UnknownSeries, match=r"no series rate for EURUSD \(stored: tone\): `clm data import --as series"
    ):
        jobs.new_job(own, a_request(training_params=params))


@pytest.mark.parametrize("model_type", [ModelType.XGBOOST, ModelType.LIGHTGBM, ModelType.NHITS])
def test_a_bundle_holds_series_in_its_golden_rows_and_names_them(
    model_type: ModelType, own: Services, tmp_path: Path
) -> None:
    params = {"horizon": 6, "features": FEATURES} | (
        {"steps": 4, "hidden_size": 8, "round_trip_bps": 0.0, "shrink": False}
        if model_type is ModelType.NHITS
        else {"rounds": 20, "threshold": 0}
    )
    joined = steps.fetch_bars(own, jobs.new_job(own, a_request()))
    recipe = catalog.recipe(model_type, params, MarketCosts())
    model = recipe.fit(joined, seed=1)
    digest = save_bundle(model, recipe, tmp_path / "bundle", joined)
    loaded = load_bundle(tmp_path / "bundle", digest)

    assert read_card(tmp_path / "bundle").series == ("tone",)
    golden.preflight(loaded, tmp_path / "bundle")
    assert np.array_equal(loaded.positions(joined), model.positions(joined))
    with pytest.raises(SeriesMissing, match="the model uses the series tone"):
        loaded.positions(replace(joined, series={}))


def test_a_subprocess_gets_the_series(own: Services, tmp_path: Path) -> None:
    job = jobs.new_job(own, a_request())
    joined = steps.fetch_bars(own, job)
    training.write_input(
        steps.training_spec(job, own.settings.walk_forward, MarketCosts()), joined, tmp_path / "input"
    )

    assert training.read_input(tmp_path / "input")[1].content_hash == joined.content_hash


def test_the_key_of_results_changes_with_the_values_of_a_series(own: Services, bars: Bars) -> None:
    def key() -> str:
        job = jobs.new_job(own, a_request())
        spec = steps.training_spec(job, own.settings.walk_forward, MarketCosts())
        return training.results_key(spec, steps.fetch_bars(own, job).content_hash)

    before = key()
    own.market.own_series.add(
        tone(bars[:-200], value=2.0, delay=DAY // 3), None, "later.csv", datetime.now(UTC)
    )
    assert key() != before


def test_a_version_is_reproduced_after_the_series_was_revised(own: Services, bars: Bars) -> None:
    version = register(own, a_request(seed=5))
    own.market.own_series.add(
        tone(bars[:-200], value=2.0, delay=DAY // 3), None, "later.csv", datetime.now(UTC)
    )
    reproduction = reproduce(own, version)

    assert reproduction.reproduced
    assert [each.what for each in reproduction.differences] == []


def test_a_trader_passes_the_series_along_or_is_told_what_to_pass(own: Services, bars: Bars) -> None:
    version = register(own, a_request(seed=6))
    served = load(MODEL, version.version, registry=own.registry, ledger=own.ledger)
    table = pd.DataFrame(
        {
            "time": pd.to_datetime(tone(bars).time, utc=True),
            "known": pd.to_datetime(tone(bars).known, utc=True),
            "value": tone(bars).value,
        }
    )
    assert served.series == ("tone",)
    with pytest.raises(SeriesMissing, match=r'positions\(bars, series=\{"tone": table\}\)'):
        served.positions(bars)
    with pytest.raises(InvalidSeries, match="no column known"):
        served.positions(bars, series={"tone": table.drop(columns="known")})
    own.market.own_series.add(tone(bars), None, "newer.csv", datetime.now(UTC))
    expected = served.positions(own.market.with_series(bars, served.series))
    assert np.array_equal(served.positions(bars, series={"tone": table}), expected)
    assert expected.any()


def test_pyfunc_takes_a_column_with_the_value_known_at_each_close(
    own: Services, bars: Bars, tmp_path: Path
) -> None:
    version = register(own, a_request(seed=7))
    assert own.registry._fluent
    files = mlflow.artifacts.download_artifacts(version.model_path, dst_path=str(tmp_path / "files"))
    loaded = mlflow.pyfunc.load_model(files)
    joined = own.market.with_series(bars, ["tone"])
    table = bars.to_frame().reset_index()

    with pytest.raises(DataError, match=r'predict\(\) takes a column "series\.tone"'):
        loaded.predict(table)
    answer = loaded.predict(table.assign(**{"series.tone": joined.series["tone"]}))
    served = own.registry.load(version.model_path, version.bundle_digest)
    assert np.array_equal(answer["position"], served.positions(joined))


def test_shadow_positions_are_computed_with_the_series(own: Services, bars: Bars, tmp_path: Path) -> None:
    version = register(own, a_request(seed=8))
    SeriesStore(tmp_path / "data").add(bars, "tests", datetime.now(UTC))
    own.market.own_series.add(tone(bars), None, "newer.csv", datetime.now(UTC))
    stored = own.market.bars("EURUSD", "1h", closed_by=own.clock())
    model = own.registry.load(version.model_path, version.bundle_digest)
    earlier = version.model_copy(update={"created_at": stored.index[0].to_pydatetime()})
    positions, _ = positions_from(own, earlier, model, stored, 0, whole=True)

    assert len(positions) == len(bars)
    assert positions.any()


def test_a_series_that_stopped_is_a_problem_of_the_watch(own: Services, bars: Bars, tmp_path: Path) -> None:
    limited = replace(tone(bars[:-200], delay=DAY // 3), max_age=4 * DAY)
    own.market.own_series.add(limited, None, "limited.csv", datetime.now(UTC))
    version = register(own, a_request(seed=10))
    known, _ = watch._measure_version(own, version, own.clock())
    assert watch.unknown_series_problems([known]) == []
    SeriesStore(tmp_path / "data").add(bars, "tests", datetime.now(UTC))

    measured, _ = watch._measure_version(own, version, own.clock())
    [problem] = watch.unknown_series_problems([measured])
    assert measured.unknown_series == ("tone",)
    assert "the series tone has no known value at the bar of 2017-12-29 21:00 UTC" in problem
    assert "`clm data import --as series tone FILE` adds newer values" in problem


def test_drift_of_a_series_is_watched(own: Services, bars: Bars, tmp_path: Path) -> None:
    version = register(own, a_request(seed=9))
    model = own.registry.load(version.model_path, version.bundle_digest)
    moved = tone(bars)
    newest = np.where(moved.time > int(model.trained_on.end.timestamp() * 1e9) - DAY, 50.0, moved.value)
    joined = own.market.with_series(bars, {})
    joined = replace(
        joined, series={"tone": replace(moved, value=newest).at(bars.time + bars.timeframe.nanoseconds)}
    )
    drift = feature_drift(version, model, joined, bars.row_after(model.trained_on.end), days=5)

    assert drift is not None
    assert drift.features[0] in {"series.tone", "tone_and_range"}
    assert drift.score > 1
    assert own.clock() - version.created_at < timedelta(days=1)
