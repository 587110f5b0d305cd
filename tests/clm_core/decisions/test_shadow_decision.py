"""The decision on a version under shadow testing: a table of cases, and what NaN can never do."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.decisions.shadow_decision import ShadowFacts, decide
from clm_core.domain.evaluations import Decision
from clm_core.domain.shadow_decisions import ShadowAction
from clm_core.evidence.paired import PairedRecord, extend
from clm_core.evidence.track_record import TrackRecord

RULES = LifecycleRules()
NOISE = np.random.default_rng(1).normal(0.0, 0.001, 120)
PROMOTE, RETIRE, CONTINUE, EXPIRE = ShadowAction


def track(sharpe: float, bars: int = 1440) -> TrackRecord:
    return TrackRecord(sharpe, 0.0, 3.0, bars, float(bars))


def lead(mean: float, days: int = 120) -> PairedRecord:
    differences = NOISE - NOISE.mean() + mean
    return extend(PairedRecord(), differences[:days], np.zeros(days))


WALKED = track(0.03, 26_000)
FIRST = ShadowFacts(60.0, 1440, 40, Decision.PASS, walk_forward=WALKED, looks=(track(0.02),))
"""A candidate after two months where nothing serves; the Sharpe ratio a year is 2.8 of 1 hour bars."""
SECOND = replace(FIRST, champion="v1", level=0.033, lead=lead(0.0005), looks=(track(0.03),))
"""A candidate of another recipe than the champion's, ahead of the champion."""
REFRESH = ShadowFacts(0.0, 0, 0, Decision.PASS, champion="v1", is_refresh=True)


@pytest.mark.parametrize(
    ("facts", "action", "reason"),
    [
        pytest.param(FIRST, PROMOTE, "do not refute the walk-forward", id="first: confirmed"),
        pytest.param(
            replace(FIRST, days=20.0, trades=100), PROMOTE, "100 trades on 1,440 bars", id="first: by trades"
        ),
        pytest.param(
            replace(FIRST, days=59.9, looks=()), CONTINUE, "has not confirmed", id="first: too early"
        ),
        pytest.param(
            replace(FIRST, looks=(track(-0.03),)), RETIRE, "backtest not confirmed", id="first: refuted"
        ),
        pytest.param(replace(FIRST, trades=0), CONTINUE, "has not confirmed", id="first: no trade"),
        pytest.param(
            replace(FIRST, days=180.0, bars=0, trades=0, looks=()), EXPIRE, "no position", id="first: no bar"
        ),
        pytest.param(
            replace(FIRST, days=180.0, trades=0), EXPIRE, "no trade was closed", id="first: no trade for long"
        ),
        pytest.param(
            replace(FIRST, verdict=Decision.INCONCLUSIVE, objections=("few bars",)),
            CONTINUE,
            "the evidence is not complete: few bars",
            id="first: inconclusive",
        ),
        pytest.param(
            replace(FIRST, verdict=Decision.FAIL, objections=("a loss",)),
            RETIRE,
            "the gate fails the version now: a loss",
            id="first: fails",
        ),
        pytest.param(SECOND, PROMOTE, "better than champion v1: at least", id="replacement: better"),
        pytest.param(
            replace(SECOND, lead=lead(-0.0005)), RETIRE, "worse than champion v1", id="replacement: worse"
        ),
        pytest.param(
            replace(SECOND, lead=lead(0.0)), CONTINUE, "neither better nor worse", id="replacement: undecided"
        ),
        pytest.param(
            replace(SECOND, lead=lead(0.0), days=180.0),
            EXPIRE,
            "undecided after 180 days",
            id="replacement: undecided for long",
        ),
        pytest.param(
            replace(SECOND, lead=lead(0.001, 49)), CONTINUE, "takes 50 days", id="replacement: too early"
        ),
        pytest.param(replace(SECOND, level=None), CONTINUE, "neither", id="replacement: no level"),
        pytest.param(
            replace(SECOND, lead=lead(0.00022), level=0.0003),
            CONTINUE,
            "neither",
            id="replacement: late rank",
        ),
        pytest.param(
            replace(SECOND, looks=(track(0.03), track(-0.045))),
            RETIRE,
            "backtest not confirmed",
            id="replacement: refuted",
        ),
        pytest.param(
            replace(SECOND, verdict=Decision.INCONCLUSIVE, objections=("few bars",)),
            CONTINUE,
            "better than the champion, but the evidence is not complete",
            id="replacement: inconclusive",
        ),
        pytest.param(REFRESH, PROMOTE, "a refresh of champion v1", id="refresh: at once"),
        pytest.param(
            replace(REFRESH, verdict=Decision.INCONCLUSIVE, days=180.0),
            EXPIRE,
            "no position was recorded in time",
            id="refresh: inconclusive for long",
        ),
        pytest.param(
            replace(SECOND, waits_for="approval"), PROMOTE, "better than champion", id="waits for a person"
        ),
        pytest.param(
            replace(SECOND, waits_for="approval", days=180.0),
            EXPIRE,
            "nobody promoted the version after 180 days",
            id="waits for a person for long",
        ),
    ],
)
def test_a_shadow_is_decided(facts: ShadowFacts, action: ShadowAction, reason: str) -> None:
    decision = decide(facts, RULES)
    assert decision.action is action
    assert reason in "; ".join(decision.reasons)


@pytest.mark.parametrize(
    ("facts", "progress"),
    [
        (replace(FIRST, days=31.2, trades=12), "31 of 60 days, 12 of 100 trades"),
        (replace(SECOND, lead=lead(0.0, 40)), "lead: 40 days, level 3.3 %, 60 of 180 days"),
        (replace(REFRESH, days=3.0), "3 of 180 days"),
    ],
    ids=["first", "replacement", "refresh"],
)
def test_the_progress_tells_what_is_reached_of_what_is_needed(facts: ShadowFacts, progress: str) -> None:
    assert decide(facts, RULES).progress == progress


def test_a_reason_names_what_a_promotion_waits_for() -> None:
    sentence = decide(replace(REFRESH, waits_for="approval"), RULES).sentence
    assert sentence == ("promote (approval): a refresh of champion v1 that passed the gate; 0 of 180 days")


NUMBER = st.one_of(st.just(math.nan), st.floats(-0.1, 0.1))
RECORD = st.builds(TrackRecord, NUMBER, NUMBER, st.just(3.0), st.just(1440), st.floats(1.0, 1440.0))
DIFFERENCES = st.lists(st.floats(-0.01, 0.01), max_size=80)


@given(
    days=st.one_of(st.just(math.nan), st.floats(0, 400)),
    champion=st.sampled_from([None, "v1"]),
    level=st.one_of(st.none(), st.floats(1e-6, 0.033)),
    looks=st.lists(RECORD, max_size=3),
    walked=st.one_of(st.none(), RECORD),
    differences=DIFFERENCES,
    nan=st.sampled_from(["days", "look", "walk_forward", "lead", "verdict"]),
)
def test_a_missing_value_never_promotes(
    days: float,
    champion: str | None,
    level: float | None,
    looks: list[TrackRecord],
    walked: TrackRecord | None,
    differences: list[float],
    nan: str,
) -> None:
    unknown = TrackRecord(math.nan, math.nan, math.nan, 0, math.nan)
    record = extend(PairedRecord(), np.array(differences), np.zeros(len(differences)))
    changes: dict[str, Any] = {
        "days": {"days": math.nan, "trades": 0},
        "look": {"looks": (*looks, unknown)},
        "walk_forward": {"walk_forward": unknown},
        "lead": {"lead": replace(record, total=math.nan)},
        "verdict": {"verdict": None},
    }[nan]
    facts = ShadowFacts(
        days, 1440, 120, Decision.PASS, champion=champion, walk_forward=walked, looks=tuple(looks)
    )
    facts = replace(replace(facts, lead=record, level=level), **changes)
    decided = decide(facts, RULES)
    # each missing value belongs to the evidence of one of the two cases
    if nan == "verdict" or (nan in ("days", "look", "walk_forward")) == (champion is None):
        assert decided.action is not PROMOTE
    assert all(map(math.isfinite, filter(None, decided.figures.model_dump().values())))
