"""Shadow decisions by processes killed between decision, promotion and the end of the place."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shadow_worlds import MakeVersion, World, policies
from sqlalchemy import Engine

from clm_core.domain.faults import Fault
from clm_core.domain.shadow_decisions import PlaceOutcome
from clm_core.domain.vocabulary import ModelStatus
from clm_core.services import Services

DECIDE = """
from dataclasses import replace
from clm_core.lifecycle import shadow_decisions
from clm_core.market.sources import MarketData
from clm_core.services import open_services
with open_services(settings) as services:
    clm = replace(
        services, policies=policies, clock=lambda: now, open_market=lambda: MarketData(folder)
    )
    decisions, problems = shadow_decisions.decide_all(clm, model_id, anew=True)
    assert not any(problems.values()), problems
"""
PROMOTED = (ModelStatus.PRODUCTION, PlaceOutcome.PROMOTED)
RETIRED = (ModelStatus.RETIRED, PlaceOutcome.RETIRED)


@pytest.mark.parametrize(
    ("fault", "better", "expected"),
    [
        (Fault.SHADOW_DECIDED, True, PROMOTED),
        (Fault.AFTER_ALIAS, True, PROMOTED),
        (Fault.SHADOW_PROMOTED, True, PROMOTED),
        (Fault.SHADOW_RETIRED, False, RETIRED),
    ],
    ids=["decided", "alias moved", "promoted", "retired"],
)
def test_the_next_pass_ends_the_same_as_a_pass_that_was_not_killed(
    fault: Fault,
    better: bool,
    expected: tuple[ModelStatus, PlaceOutcome],
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    parent: Any,
    check: Callable[[str], None],
    ledger_engine: Engine,
    tmp_path: Path,
) -> None:
    world = World(services, model_id, make_version, tmp_path, ledger_engine)
    version = world.register(10)
    world.follow(version, world.foresight if better else -world.foresight, 80)
    names = {"folder": tmp_path, "model_id": world.model_id, "policies": policies()}
    assert parent.run(DECIDE, fault, now=world.when(71), **names) == -signal.SIGKILL
    world.decide(71.1)
    world.decide(71.2)
    assert (world.status(version), *world.outcomes(ledger_engine)) == expected
    decisions = services.ledger.shadow_decisions.history(version.model_id, version.version)
    assert len(decisions) == 1
    check(world.model_id)
