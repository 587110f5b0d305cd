"""Searches with own features and series: in worker processes, and continued with the same inputs only."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tunings import a_request, own_market, own_symbol

from clm_core.domain.errors import LookAhead, StudyDiffers
from clm_core.domain.tuning import TrialState, TuneRequest
from clm_core.market import feature_files
from clm_core.market.series import KnownSeries
from clm_core.search import tuning
from clm_core.search.request import search_bars
from clm_core.services import Services

CODE = """
import numpy as np
from clm_core.market.own_features import feature

@feature(warm_up=1, series=["tone"])
def change(bars, series):
    return np.diff(np.log(bars.close), prepend=0.0) * series["tone"]

@feature(warm_up=0)
def tomorrow(bars):
    return np.append(np.diff(np.log(bars.close)), 0.0)
"""


def tone(length: int) -> KnownSeries:
    time = 1_500_000_000_000_000_000 + 86_400_000_000_000 * np.arange(length)
    return KnownSeries.of("tone", time, time, np.sin(np.arange(length)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def clm(services: Services, tmp_path: Path, file: Path) -> Iterator[Services]:
    own = own_market(services, tmp_path)
    own.market.own_series.add(tone(800), None, "tone.csv", datetime.now(UTC))
    with feature_files.use([file]):
        yield own


def request_with(clm: Services, features: list[str]) -> TuneRequest:
    params = a_request().training_params | {"features": features}
    return a_request(symbol=own_symbol(clm), trials=1, workers=1, training_params=params)


def test_worker_processes_compute_trials_with_own_features_and_series(clm: Services) -> None:
    request = request_with(clm, ["change", "series.tone", "volatility_24"])
    opened = tuning.open_tuning(clm, request)
    result = tuning.search(clm, opened, request)

    assert [each.state for each in result.trials] == [TrialState.COMPLETE]
    assert list(opened.own_features) == ["change"]
    assert opened.series == clm.market.newest_series(["tone"], opened.symbol)


def test_a_study_keeps_the_state_of_its_series_and_refuses_another_source_of_a_feature(
    clm: Services, file: Path
) -> None:
    request = request_with(clm, ["change", "series.tone"])
    opened = tuning.open_tuning(clm, request)
    before = search_bars(clm.market, opened).content_hash
    clm.market.own_series.add(tone(900), None, "newer.csv", datetime.now(UTC))

    assert tuning.open_tuning(clm, request) == opened
    assert search_bars(clm.market, opened).content_hash == before
    file.write_text(CODE.replace("prepend=0.0) *", "prepend=0.0) +"))
    with pytest.raises(StudyDiffers, match=r"own_features was .*change"):
        tuning.open_tuning(clm, request)


def test_a_leaking_feature_ends_a_search_before_its_first_trial(clm: Services) -> None:
    request = request_with(clm, ["tomorrow", "volatility_24"])
    opened = tuning.open_tuning(clm, request)
    with pytest.raises(LookAhead, match=r"the feature tomorrow \(mine\.py\)"):
        tuning.search(clm, opened, request)
