"""Retrains for a changed regime are weighted towards the regime measured."""

import uuid
from typing import Any

import pytest
from records import a_version

from clm_core.domain.actors import Actor
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Observation, Reply, TriggerRequest
from clm_core.domain.vocabulary import CandidateOrigin, ModelType, Role, TriggerReason
from clm_core.retraining import jobs
from clm_core.services import Services
from clm_core.triggers import intake

ADA = Actor(name="ada", role=Role.OPERATOR)
CHANGED = TriggerReason.REGIME_CHANGE


def request(
    params: dict[str, Any],
    regime: str | None = "calm",
    recipe_from: str | None = None,
    reason: TriggerReason = CHANGED,
    **changes: Any,
) -> TriggerRequest:
    """Request on the bundled BTCUSD bars, of whose newest year three months are turbulent."""
    training = {"model_type": "lightgbm", "symbol": "BTCUSD", "dataset_span_days": 365, "requested_by": "bob"}
    return TriggerRequest(
        training=RetrainRequest.model_validate(
            training | {"training_params": params, "trigger_reason": reason} | changes
        ),
        actor=ADA,
        source="tests",
        observed=Observation(regime=regime),
        recipe_from=recipe_from,
    )


def trained(clm: Services, job: TrainingJob, label: str) -> str:
    """Label of a version of the job, recorded without training, as `recipe_from` names it."""
    clm.ledger.create_job(job)
    version = a_version(job, label)
    with jobs.running(clm, job) as lease:
        clm.ledger.add_version(version, lease)
    return f"{label}: in production"


@pytest.mark.parametrize("regime", ["calm", "turbulent"])
def test_a_retrain_for_a_changed_regime_is_weighted_towards_it(clm: Services, regime: str) -> None:
    answer = intake.submit(clm, request({"rounds": 2}, regime))
    assert answer.reply is Reply.ACCEPTED
    assert answer.job_id is not None
    params = clm.ledger.job(answer.job_id).training_params
    assert (params["rounds"], params["regime"]) == (2, regime)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"params": {"regime": "turbulent"}}, "turbulent"),
        ({"params": {"regime": "none"}}, "none"),
        ({"params": {}, "regime": "wild"}, None),
        ({"params": {}, "regime": None}, None),
        ({"params": {}, "reason": TriggerReason.PERIODIC}, None),
        ({"params": {}, "model_type": "momentum", "plugin": None}, None),
        ({"params": {}, "model_type": "other", "plugin": "momentum"}, None),
        ({"params": {}, "model_type": ModelType.NHITS}, None),
    ],
    ids=[
        "a person's",
        "a person's none",
        "another name",
        "not measured",
        "another reason",
        "a rule",
        "plug-in",
        "nhits",
    ],
)
def test_a_job_is_trained_as_requested_otherwise(
    clm: Services, changes: dict[str, Any], expected: str | None
) -> None:
    assert intake.job_of(clm, request(**changes)).training_params.get("regime") == expected


def test_a_regime_that_a_person_named_stays_over_the_repeated_recipes(clm: Services) -> None:
    first = intake.job_of(clm, request({"regime": "turbulent"}, None, reason=TriggerReason.MANUAL))
    repeated = trained(clm, first, "v20260301_120000")
    second = intake.job_of(clm, request(first.training_params, None, repeated, TriggerReason.PERIODIC))
    again = trained(clm, second, "v20260302_120000")
    assert intake.job_of(clm, request(second.training_params, "calm", again)).training_params["regime"] == (
        "turbulent"
    )


@pytest.mark.parametrize("recipe_from", [None, "defaults: no version has served"])
def test_a_measured_regime_gives_way_to_the_next_measured_one(clm: Services, recipe_from: str | None) -> None:
    first = intake.job_of(clm, request({}, "turbulent", recipe_from))
    assert first.training_params["regime"] == "turbulent"
    repeated = trained(clm, first, "v20260301_120000")
    second = intake.job_of(clm, request(first.training_params, None, repeated, TriggerReason.PERIODIC))
    assert second.training_params["regime"] == "turbulent"
    again = trained(clm, second, "v20260302_120000")
    assert intake.job_of(clm, request(second.training_params, "calm", again)).training_params["regime"] == (
        "calm"
    )


def test_the_regime_of_a_variant_gives_way_to_the_measured_one(clm: Services) -> None:
    params = {"regime": "turbulent", "rounds": 2}
    candidate = clm.ledger.candidates.add(
        StrategyCandidate(
            id=uuid.uuid4(),
            base_strategy="lightgbm_btcusd_1h",
            model_type=ModelType.LIGHTGBM,
            symbol="BTCUSD",
            timeframe="1h",
            params=params,
            origin=CandidateOrigin.MUTATION,
            created_at=clm.clock(),
        )
    )
    evolved = request(params, None, f"candidate {candidate.id}: better", TriggerReason.STRATEGY_EVOLUTION)
    first = intake.job_of(clm, evolved.model_copy(update={"candidate_id": candidate.id}))
    assert first.training_params["regime"] == "turbulent"
    repeated = trained(clm, first, "v20260301_120000")
    assert intake.job_of(clm, request(first.training_params, "calm", repeated)).training_params["regime"] == (
        "calm"
    )


def test_a_regime_too_new_is_left_out_and_the_job_says_so(clm: Services) -> None:
    # within the newest 60 days of the bars the market was turbulent throughout
    job = intake.job_of(clm, request({"regime": "none"}, "calm", dataset_span_days=60))
    assert job.training_params["regime"] == "none"
    job = intake.job_of(clm, request({}, "calm", "defaults: no version has served", dataset_span_days=60))
    assert "regime" not in job.training_params
    assert str(job.recipe_from).startswith(
        "defaults: no version has served; not towards the regime calm: BTCUSD 1h: 0 of the "
    )
