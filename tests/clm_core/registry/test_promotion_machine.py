"""Random sequences of promotions, manual changes and crashes, compared with a model of one page."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import hypothesis
import pytest
from promotion_machine import (
    STEPS,
    CopiedModels,
    PromotionMachine,
    crash_at,
    made_models,
    play,
    without_waits_for_the_disk,
)
from sqlalchemy import Engine, create_engine

from clm_core.domain.promotions import Promotion
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

SEQUENCES = 1000 if "CHAOS_REPETITIONS" in os.environ else 4


@pytest.fixture(scope="module")
def world(
    services: Services,
    make_version: Callable[..., ModelVersion],
    ledger_engine: Engine,
    audited: Callable[[str], list[str]],
) -> Iterator[CopiedModels]:
    mlflow = create_engine(services.database.url("mlflow"))
    model_id = "lightgbm_machineusd_1h"
    made = made_models(services, make_version, model_id, ledger_engine, mlflow, audited)
    with without_waits_for_the_disk(ledger_engine):
        yield made
    mlflow.dispose()


Play = Callable[[hypothesis.settings], int]


@pytest.fixture
def played(world: CopiedModels, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Function that plays sequences of steps; returns their number."""
    monkeypatch.setattr("clm_core.registry.promotion.crash_at", crash_at)
    monkeypatch.setattr("clm_core.ledger.promotions.crash_at", crash_at)
    return lambda settings: len(play(partial(PromotionMachine, world), settings))


def test_any_sequence_of_changes_and_accidents_ends_in_the_expected_state(
    played: Play, verify_audit: Callable[[], None]
) -> None:
    settings = hypothesis.settings(max_examples=SEQUENCES, stateful_step_count=STEPS)
    assert played(settings) >= SEQUENCES
    verify_audit()


def previous_alias(history: Sequence[Promotion]) -> str | None:
    return history[-1].from_version if history else None


def last_but_one(history: Sequence[Promotion]) -> str | None:
    served = [change.to_version for change in history]
    return served[-2] if len(served) > 1 else None


@pytest.mark.chaos
@pytest.mark.parametrize("wrong", [previous_alias, last_but_one], ids=lambda wrong: wrong.__name__)
def test_a_rollback_to_a_wrong_version_is_noticed(
    wrong: Callable[[Sequence[Promotion]], str | None], played: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.registry.promotion.rollback_target", wrong)
    settings = hypothesis.settings(
        max_examples=1000, stateful_step_count=STEPS, phases=[hypothesis.Phase.generate]
    )
    with pytest.raises(AssertionError):
        played(settings)
