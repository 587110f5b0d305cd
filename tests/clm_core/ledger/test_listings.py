"""Lists read page by page, on a real PostgreSQL."""

import base64
import itertools
import json
import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import records
from pydantic import ValidationError
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, InvalidCursor, InvalidSymbol, NotFound
from clm_core.domain.evaluations import Decision, EvaluationResult, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.listings import CandidateQuery, JobQuery, ListedVersion, VersionQuery
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import (
    CandidateOrder,
    CandidateOrigin,
    JobStatus,
    ModelStatus,
    ModelType,
    VersionOrder,
)
from clm_core.ledger.store import Ledger

NOW = datetime(2025, 12, 4, 14, 30, 22, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHARPES = (None, 1.5, -0.2, math.nan, 1.5, 0.1 + 0.2, math.inf)
"""Of the versions in the order they are made; None: never judged."""


def a_job(**changes: Any) -> TrainingJob:
    return records.a_job(**{"created_at": NOW} | changes)


def a_version(job: TrainingJob, number: int, status: ModelStatus = ModelStatus.CANDIDATE) -> ModelVersion:
    return records.a_version(
        job,
        f"v{number}",
        status=status,
        mlflow_version=number,
        created_at=NOW + number * HOUR,
        validation_metrics={"auc": 0.5 + number / 100, "skill": number / 1e6} if number > 3 else {},
    )


def judge(
    ledger: Ledger,
    version: ModelVersion,
    sharpe: float,
    at: datetime = NOW,
    validation: dict[str, float] | None = None,
) -> EvaluationResult:
    score = 40.0 if math.isnan(sharpe) else min(max(sharpe * 50, 0.0), 100.0)
    result = records.an_evaluation(
        version.model_id, version.version, sharpe_ratio=sharpe, promotion_score=score, created_at=at
    )
    verdict = Verdict(decision=Decision.FAIL, score=score, checks=(), reasons=("too little",))
    count_trial_of(ledger, version)
    policy = GatePolicy(name="strict")
    digest = version.bundle_digest
    return ledger.add_evaluation(result, verdict, policy, digest, validation=validation)


@pytest.fixture
def versions(ledger: Ledger) -> list[ModelVersion]:
    """v0, v1, ... with SHARPES, an hour apart."""
    job = ledger.create_job(a_job())
    made = [ledger.add_version(a_version(job, number)) for number in range(len(SHARPES))]
    for version, sharpe in zip(made, SHARPES, strict=True):
        if sharpe is not None:
            judge(ledger, version, sharpe)
    return made


def labels(listed: tuple[ListedVersion, ...]) -> list[str]:
    return [each.version.version for each in listed]


def pages(ledger: Ledger, query: VersionQuery) -> list[list[str]]:
    labels_by_page = []
    after = query.after
    for _ in range(100):
        page = ledger.find_versions(query.model_copy(update={"after": after}))
        labels_by_page.append(labels(page.items))
        if (after := page.next) is None:
            return labels_by_page
    raise AssertionError("the pages never end")


ORDERS = {
    (VersionOrder.CREATED_AT, True): ["v6", "v5", "v4", "v3", "v2", "v1", "v0"],
    (VersionOrder.SHARPE_RATIO, True): ["v6", "v4", "v1", "v5", "v2", "v3", "v0"],
    (VersionOrder.PROMOTION_SCORE, True): ["v6", "v4", "v1", "v3", "v5", "v2", "v0"],
}
ORDERS |= {(order, False): labels[::-1] for (order, _), labels in ORDERS.items()}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("order", "descending"), ORDERS)
def test_pages_of_any_size_give_every_version_once_and_in_order(
    order: VersionOrder, descending: bool, limit: int, ledger: Ledger, versions: list[ModelVersion]
) -> None:
    all_pages = pages(ledger, VersionQuery(order=order, descending=descending, limit=limit))
    assert [label for page in all_pages for label in page] == ORDERS[order, descending]
    assert {len(page) for page in all_pages[:-1]} <= {limit}
    assert all_pages[-1]


def test_a_version_is_listed_with_and_ranked_by_its_newest_evaluation(
    ledger: Ledger, versions: list[ModelVersion]
) -> None:
    newest = judge(ledger, versions[1], 9.0, at=NOW + HOUR)
    judge(ledger, versions[1], 99.0, at=NOW - HOUR)
    first = ledger.find_versions(VersionQuery(min_sharpe=8.0, order=VersionOrder.SHARPE_RATIO, limit=2)).items
    assert first[1] == ListedVersion(version=versions[1], evaluation=newest)
    [unjudged] = ledger.find_versions(VersionQuery(limit=1, descending=False)).items
    assert unjudged == ListedVersion(version=versions[0], evaluation=None)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param({}, ["v6", "v5", "v4", "v3", "v2", "v1", "v0"], id="nothing"),
        pytest.param({"model_type": ModelType.XGBOOST, "limit": 1}, ["v6"], id="type"),
        pytest.param({"model_type": ModelType.LIGHTGBM}, [], id="another type"),
        pytest.param({"model_id": "xgboost_btcusd_1h", "limit": 1}, ["v6"], id="model"),
        pytest.param({"model_id": "a\0b"}, [], id="a name the database could not hold"),
        pytest.param({"symbol": "btc/usd", "limit": 1}, ["v6"], id="symbol as it is typed"),
        pytest.param({"timeframe": "4h"}, [], id="timeframe"),
        pytest.param({"status": ModelStatus.FAILED}, [], id="status"),
        pytest.param({"min_sharpe": 0.3}, ["v6", "v5", "v4", "v1"], id="Sharpe"),
        pytest.param({"min_sharpe": -1e308}, ["v6", "v5", "v4", "v2", "v1"], id="no NaN has a Sharpe"),
        pytest.param({"metric": ["auc>0.545"]}, ["v6", "v5"], id="metric above"),
        pytest.param({"metric": ["auc <= 0.54"]}, ["v4"], id="metric at most, for those with the metric"),
        pytest.param({"metric": ["auc>-1", "skill<6e-06"]}, ["v5", "v4"], id="two metrics"),
        pytest.param({"metric": ["no_such_metric<1"]}, [], id="a metric that no version has"),
        pytest.param({"since": NOW + 5 * HOUR}, ["v6", "v5"], id="since includes"),
        pytest.param({"until": NOW + HOUR}, ["v0"], id="until excludes"),
        pytest.param({"since": NOW + HOUR, "until": NOW + 3 * HOUR, "min_sharpe": 0}, ["v1"], id="several"),
    ],
)
def test_filters_select_the_requested_versions(
    filters: dict[str, Any], expected: list[str], ledger: Ledger, versions: list[ModelVersion]
) -> None:
    assert labels(ledger.find_versions(VersionQuery(**filters)).items) == expected


def test_the_validation_metrics_of_a_judgement_are_those_of_the_version(ledger: Ledger) -> None:
    version = ledger.add_version(a_version(ledger.create_job(a_job()), 1))
    judge(ledger, version, 1.0, validation={"auc": 0.55, "brier_skill": -0.001})
    stored = ledger.version(version.model_id, version.version)
    assert stored.validation_metrics == {"auc": 0.55, "brier_skill": -0.001}
    judge(ledger, version, 1.0)
    assert ledger.version(version.model_id, version.version) == stored


def test_versions_added_between_two_pages_shift_nothing(ledger: Ledger, versions: list[ModelVersion]) -> None:
    first = ledger.find_versions(VersionQuery(limit=3))
    ledger.add_version(a_version(ledger.create_job(a_job()), 10))
    assert labels(first.items) == ["v6", "v5", "v4"]
    assert pages(ledger, VersionQuery(limit=3, after=first.next)) == [["v3", "v2", "v1"], ["v0"]]


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


MINE = VersionQuery().fingerprint


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "no cursor",
        "é",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        forged(1),
        forged(),
        forged(MINE),
        forged(MINE, "2025-12-04T14:30:22", "m", "v"),
        forged(MINE, "yesterday", "m", "v"),
        forged(MINE, "2025-12-04T14:30:22+00:00", "m\0", "v"),
        forged(MINE, "2025-12-04T14:30:22+00:00", "m", "v", "w"),
    ],
)
def test_a_malformed_cursor_is_refused(cursor: str, ledger: Ledger) -> None:
    with pytest.raises(InvalidCursor, match="is not a cursor: use the cursor of the preceding page"):
        ledger.find_versions(VersionQuery(after=cursor))


def test_the_cursor_of_another_list_is_refused(ledger: Ledger, versions: list[ModelVersion]) -> None:
    cursor = ledger.find_versions(VersionQuery(limit=1)).next
    others: list[dict[str, Any]] = [
        {"order": VersionOrder.SHARPE_RATIO},
        {"descending": False},
        {"min_sharpe": 1.0},
        {"symbol": "BTCUSD"},
    ]
    for other in others:
        with pytest.raises(InvalidCursor, match="belongs to a list with other filters or another order"):
            ledger.find_versions(VersionQuery(after=cursor, **other))
    assert ledger.find_versions(VersionQuery(after=cursor, limit=500)).next is None


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 0},
        {"limit": 1001},
        {"min_sharpe": math.nan},
        {"since": datetime(2025, 12, 4)},
        {"metric": ["auc"]},
        {"metric": ["auc>nan"]},
        {"metric": ['auc" > 0 || "x>0']},
    ],
    ids=["no rows", "too many rows", "NaN", "no time zone", "no condition", "no limit", "no name"],
)
def test_a_query_that_no_list_can_answer_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VersionQuery(**filters)


def test_a_malformed_symbol_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidSymbol, match="cannot be a symbol"):
        ledger.find_versions(VersionQuery(symbol="../../etc"))


def test_jobs_are_read_page_by_page_too(ledger: Ledger) -> None:
    made = [ledger.create_job(a_job()) for _ in range(4)]
    other = ledger.create_job(a_job(model_type=ModelType.LIGHTGBM, created_at=NOW + HOUR))
    expected = [other, *sorted(made, key=lambda job: job.id, reverse=True)]
    first = ledger.find_jobs(JobQuery(limit=2))
    assert [*first.items, *ledger.find_jobs(JobQuery(after=first.next)).items] == expected
    assert ledger.find_jobs(JobQuery(model_id=other.model_id)).items == (other,)
    assert ledger.find_jobs(JobQuery(status=JobStatus.FAILED)).items == ()
    with pytest.raises(InvalidCursor, match="other filters"):
        ledger.find_jobs(JobQuery(after=first.next, status=JobStatus.PENDING))


def a_candidate(number: int = 0, **changes: Any) -> StrategyCandidate:
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "base_strategy": "xgboost_btcusd_1h",
        "model_type": ModelType.XGBOOST,
        "symbol": "BTCUSD",
        "timeframe": "1h",
        "params": {"lookback": 30, "stop": 0.02},
        "origin": CandidateOrigin.MUTATION,
        "created_at": NOW + number * HOUR,
    }
    return StrategyCandidate(**values | changes)


def test_candidates_come_back_as_they_were_added_best_first_or_newest_first(ledger: Ledger) -> None:
    one = ledger.candidates.add(a_candidate(0, fitness_score=1.5))
    unscored = a_candidate(1)
    assert one.fitness_interval is None
    ledger.candidates.add(unscored)
    measured = {"fitness_score": 2.0, "fitness_low": 0.3, "fitness_high": 3.7}
    parents = (one.id, unscored.id)
    child = a_candidate(2, **measured, origin=CandidateOrigin.CROSSOVER, parents=parents)
    ledger.candidates.add(child)

    def list_candidates(**filters: Any) -> list[StrategyCandidate]:
        query = CandidateQuery(limit=1, **filters)
        listed: list[StrategyCandidate] = []
        for _ in itertools.count():
            page = ledger.candidates.find(query)
            listed += page.items
            if page.next is None:
                return listed
            query = query.model_copy(update={"after": page.next})
        return listed

    assert list_candidates() == [child, unscored, one]
    assert list_candidates(order=CandidateOrder.FITNESS_SCORE) == [child, one, unscored]
    assert list_candidates(order=CandidateOrder.FITNESS_SCORE, descending=False) == [unscored, one, child]
    assert list_candidates(min_fitness=1.6) == [child]
    assert list_candidates(origin=CandidateOrigin.CROSSOVER) == [child]
    assert list_candidates(symbol="eurusd") == []


def test_candidates_are_filtered_by_plugin(ledger: Ledger) -> None:
    ridge, _ = (
        ledger.candidates.add(a_candidate(model_type=ModelType.OTHER, plugin=name))
        for name in ("ridge", "lasso")
    )
    ledger.candidates.add(a_candidate())
    assert ledger.candidates.find(CandidateQuery(plugin="ridge")).items == (ridge,)
    both = ledger.candidates.find(CandidateQuery(model_type=ModelType.OTHER)).items
    assert {candidate.plugin for candidate in both} == {"ridge", "lasso"}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ({"model_type": ModelType.OTHER}, "type OTHER needs the name of a plug-in"),
        ({"model_type": ModelType.XGBOOST, "plugin": "ridge"}, "xgboost is not a plug-in"),
    ],
    ids=["unnamed", "no plug-in"],
)
def test_a_candidate_names_a_plugin_if_and_only_if_its_type_is_other(
    kind: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        a_candidate(**kind)


def test_a_duplicate_candidate_and_a_candidate_without_its_parents_are_refused(ledger: Ledger) -> None:
    candidate = ledger.candidates.add(a_candidate())
    with pytest.raises(AlreadyExists, match=f"Candidate {candidate.id}"):
        ledger.candidates.add(candidate)
    stranger = uuid.uuid4()
    with pytest.raises(NotFound, match=f"has unrecorded parents: {stranger}"):
        ledger.candidates.add(a_candidate(parents=(candidate.id, stranger)))
    assert ledger.candidates.find(CandidateQuery()).items == (candidate,)
