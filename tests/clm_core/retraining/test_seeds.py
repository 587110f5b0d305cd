"""Seeds: a model that depends on the seed is judged over several seeds."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.retraining import jobs, steps
from clm_core.services import Services


@contextmanager
def running(services: Services, seeds: int | None) -> Iterator[tuple[Services, TrainingJob, Lease]]:
    plan = WalkForwardPlan(folds=2, seeds=seeds)
    own = replace(services, settings=services.settings.model_copy(update={"walk_forward": plan}))
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="BTCUSD",
        dataset_span_days=400,
        training_params={"rounds": 20, "learning_rate": 0.2, "min_child_weight": 1, "threshold": 0.0},
        seed=40,
        requested_by="tests",
    )
    job = services.ledger.create_job(jobs.new_job(own, request).model_copy(update={"id": uuid4()}))
    with jobs.running(own, job) as lease:
        yield own, job, lease
    shutil.rmtree(services.work / str(job.id), ignore_errors=True)


def test_each_seed_is_a_trial_and_the_lower_quartile_is_judged(services: Services) -> None:
    with running(services, seeds=5) as (own, job, lease):
        bars = steps.fetch_bars(own, job)
        trained = steps.train(own, job, bars)
        evaluation = steps.evaluate_out_of_sample(own, lease, job, bars, trained)
    trials = services.ledger.trials.of_job(job.id)
    assert sorted(trial.seed for trial in trials) == [40, 41, 42, 43, 44]
    assert trials[-1].seed == 40 + evaluation.judged_seed
    assert len(set(evaluation.seed_sharpes)) > 1
    assert evaluation.seed_sharpes == tuple(sorted(evaluation.seed_sharpes))
    assert evaluation.metrics.sharpe_ratio == evaluation.seed_sharpes[1]


def test_trees_are_tried_with_a_single_seed_by_default(services: Services) -> None:
    with running(services, seeds=None) as (own, job, lease):
        bars = steps.fetch_bars(own, job)
        trained = steps.train(own, job, bars)
        evaluation = steps.evaluate_out_of_sample(own, lease, job, bars, trained)
    assert len(services.ledger.trials.of_job(job.id)) == 1
    assert evaluation.judged_seed == 0
    assert evaluation.seed_sharpes == (evaluation.metrics.sharpe_ratio,)
