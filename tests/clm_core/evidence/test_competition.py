"""Competition: only versions with a lead beyond luck are called better."""

import sys

import numpy as np
import pytest

from clm_core.domain.errors import MissingExtra, NotEnoughBars
from clm_core.evidence.competition import compete
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import DAY, TrialRecord, trial_record


def daily(edge: float, seed: int, days: int = 500, first_day: int = 0) -> TrialRecord:
    returns = 0.01 * (np.random.default_rng(seed).standard_normal(days) + edge)
    times = (first_day + np.arange(days)) * DAY
    return trial_record(times, returns, track_record(returns))


def test_the_one_with_an_edge_is_found_among_those_without() -> None:
    candidates = {f"v{seed}": daily(0.0, seed) for seed in range(6)} | {"good": daily(0.25, 99)}
    result = compete(candidates, None, 0.05, seed=1)
    assert result.superior == ("good",)
    assert result.p_value < 0.01
    assert result.days == 500


def test_the_best_of_many_without_an_edge_is_not_better() -> None:
    result = compete({f"v{seed}": daily(0.0, seed) for seed in range(10)}, None, 0.05, seed=1)
    assert max(result.sharpes.values()) > 0.03
    assert result.superior == ()
    assert result.p_value > 0.05


def test_candidates_are_compared_with_what_serves() -> None:
    champion = daily(0.25, 99)
    alone = compete({"as good": daily(0.25, 98)}, None, 0.05, seed=1)
    against = compete({"as good": daily(0.25, 98)}, champion, 0.05, seed=1)
    assert (alone.superior, against.superior) == (("as good",), ())


def test_only_days_that_all_of_them_traded_count() -> None:
    result = compete({"early": daily(0.1, 1), "late": daily(0.1, 2, first_day=400)}, None, 0.05, seed=1)
    assert result.days == 100
    with pytest.raises(NotEnoughBars, match="50 days are common to all 2 versions"):
        compete({"early": daily(0.1, 1), "late": daily(0.1, 2, first_day=450)}, None, 0.05, seed=1)


def test_the_same_seed_gives_the_same_answer() -> None:
    candidates = {f"v{seed}": daily(0.1, seed) for seed in range(3)}
    assert compete(candidates, None, 0.05, seed=4) == compete(candidates, None, 0.05, seed=4)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(MissingExtra, match=r"arch is not installed.*\[compete\]"):
        compete({"v": daily(0.1, 1)}, None, 0.05, seed=1)
