"""Allocations, fills and approvals by processes killed at each step, and the pass or request after them."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from form_folder import FormFolder
from shadow_worlds import ADA, DAYS, MakeVersion, World, policies
from sqlalchemy import Engine, text

from clm_core.domain.alerts import AlertKind
from clm_core.domain.allocations import AllocationEnd
from clm_core.domain.faults import Fault
from clm_core.domain.fills import Fill, FillQuery, FillReceipt
from clm_core.domain.shadow_decisions import PlaceOutcome
from clm_core.domain.vocabulary import ModelStatus
from clm_core.lifecycle import allocation, approvals
from clm_core.lifecycle.fills import fills_of, report_fills
from clm_core.services import Services

HEAD = """
from dataclasses import replace
from clm_core.lifecycle import allocation, approvals, fills, shadow_decisions
from clm_core.market.sources import MarketData
from clm_core.services import open_services
with open_services(settings) as services:
    clm = replace(
        services, policies=policies, clock=lambda: now, open_market=lambda: MarketData(folder)
    )
"""
START = HEAD + "    allocation.start(clm, model_id, [candidate], actor, 'try it')"
UPDATE = HEAD + "    allocation.update_all(clm, model_id)"
REPORT = HEAD + "    fills.report_fills(clm, report, actor)"
FORMS = """
from clm_core.lifecycle import approvals
approvals.knows_prefect, approvals.prefect_runs = (lambda home: True), forms.opened
"""
KEEP = FORMS + HEAD + "    approvals.keep_forms(clm)"
DECIDE = HEAD + "    shadow_decisions.decide_all(clm, model_id, anew=True)"
ANSWER = HEAD + "    approvals.answer(clm, model_id, version, True, 'fine', actor, key='answer')"
WITH_APPROVAL = {"promotion": "approval", "approval_days": 3.0}


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


Killed = Callable[..., None]


@pytest.fixture
def kill(world: World, parent: Any, tmp_path: Path) -> Killed:
    """Function that runs a script in a process which is killed at a point."""
    names = {"folder": tmp_path, "model_id": world.model_id, "actor": ADA, "policies": policies()}

    def killed(script: str, fault: Fault, day: float, **others: Any) -> None:
        status = parent.run(script, fault, now=world.when(day), **names | others)
        assert status == -signal.SIGKILL

    return killed


@pytest.fixture
def events(ledger_engine: Engine) -> Callable[[str], int]:
    """Function that counts the events about the allocation of a model."""
    query = text(
        "SELECT count(*) FROM outbox WHERE type = 'clm.allocation_changed' AND payload->>'model_id' = :id"
    )

    def count(model_id: str) -> int:
        with ledger_engine.begin() as connection:
            return int(connection.scalar(query, {"id": model_id}) or 0)

    return count


def test_an_allocation_killed_at_any_step_weighs_no_bar_twice_and_ends_once(
    world: World,
    kill: Killed,
    check: Callable[[str], None],
    audited: Callable[[str], list[str]],
    events: Callable[[str], int],
    verify_audit: Callable[[], None],
) -> None:
    production = world.register(9)
    candidate = world.register(10)
    world.promote(production, 10)
    world.follow(production, np.zeros(DAYS), 120)
    world.follow(candidate, 0.5 * world.foresight, 120)
    store = world.services(0).ledger.allocations
    model_id = world.model_id

    kill(START, Fault.ALLOCATION_OPENED, 20, candidate=candidate.version)
    assert store.history(model_id) == []
    kill(START, Fault.ALLOCATION_STARTED, 20, candidate=candidate.version)
    run = allocation.start(world.services(20), model_id, [candidate.version], ADA, "try it")
    assert [run] == store.history(model_id)

    traded = {world.when(day): production.version for day in range(20, 80)}
    allocation.report_served(world.services(81), model_id, traded, ADA)
    kill(UPDATE, Fault.WEIGHTS_INSERTED, 81)
    assert len(store.weights(run)) == 1
    kill(UPDATE, Fault.WEIGHTS_RECORDED, 81)
    [step], _ = allocation.update_all(world.services(81.1), model_id)
    before, after = store.weights(run)
    assert after.arms == step.arms
    assert before.weights[1] < after.weights[1] <= before.weights[1] + 0.1 + 1e-9

    world.promote(candidate, 82)
    alerts = world.services(0).alerts
    assert model_id in [each.subject for each in alerts.lasting(AlertKind.SPLIT_DIFFERS)]
    kill(UPDATE, Fault.ALLOCATION_ENDING, 82.1)
    assert store.running(model_id) == run
    kill(UPDATE, Fault.ALLOCATION_ENDED, 82.1)
    assert allocation.update_all(world.services(82.2), model_id) == ([], {})
    [done] = store.history(model_id)
    assert done.end is AllocationEnd.PROMOTED
    assert model_id not in [each.subject for each in alerts.lasting(AlertKind.SPLIT_DIFFERS)]
    steps = ["allocation_started", "allocation_changed", "allocation_ended"]
    assert [action for action in audited(model_id) if action.startswith("allocation")] == steps
    assert events(model_id) == len(steps)
    check(model_id)
    verify_audit()


def test_a_report_of_fills_killed_before_its_answer_is_counted_once(world: World, kill: Killed) -> None:
    version = world.register(9)
    world.promote(version, 10.5)
    report = [
        Fill(
            id=f"f{day}",
            model_id=version.model_id,
            version=version.version,
            time=world.when(day + 0.1),
            change=0.5,
            price=float(world.bars.open[day]),
        )
        for day in (12, 13)
    ]
    clm = world.services(20)
    kill(REPORT, Fault.FILLS_INSERTED, 20, report=report)
    assert fills_of(clm, world.model_id, FillQuery()).items == ()
    kill(REPORT, Fault.FILLS_RECORDED, 20, report=report)
    assert report_fills(clm, report, ADA) == FillReceipt(new=0, known=2)
    assert [each.id for each in fills_of(clm, world.model_id, FillQuery()).items] == ["f13", "f12"]


def test_an_approval_killed_at_any_step_has_one_form_and_one_answer(
    world: World,
    kill: Killed,
    check: Callable[[str], None],
    audited: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ledger_engine: Engine,
) -> None:
    forms = FormFolder(tmp_path / "forms")
    forms.folder.mkdir()
    monkeypatch.setattr(approvals, "knows_prefect", lambda home: True)
    monkeypatch.setattr(approvals, "prefect_runs", forms.opened)
    asking = {"forms": forms, "policies": policies(**WITH_APPROVAL)}
    model_id = world.model_id

    def states(label: str) -> list[str]:
        return [run.state for run in forms.forms(forms.deployments("approve")["approve"], label)]

    def is_told(label: str) -> bool:
        lasting = world.services(0).alerts.lasting(AlertKind.APPROVAL_WAITS)
        return label in [each.subject for each in lasting]

    ignored = world.register(10)
    label = f"{model_id}@{ignored.version}"
    world.follow(ignored, world.foresight, 90)
    world.decide(71, **WITH_APPROVAL)
    kill(KEEP, Fault.APPROVAL_TOLD, 71, **asking)
    assert (is_told(label), states(label)) == (True, [])
    kill(KEEP, Fault.FORM_OPENED, 71, **asking)
    approvals.keep_forms(world.services(71.1, **WITH_APPROVAL))
    assert states(label) == ["PAUSED"]
    # silence, and passes killed while they refuse
    kill(DECIDE, Fault.SHADOW_DECIDED, 74.5, **asking)
    kill(DECIDE, Fault.SHADOW_RETIRED, 74.6, **asking)
    world.decide(74.7, **WITH_APPROVAL)
    assert (world.status(ignored), world.outcomes(ledger_engine)) == (
        ModelStatus.RETIRED,
        [PlaceOutcome.EXPIRED],
    )
    kill(KEEP, Fault.FORM_CANCELLED, 74.7, **asking)
    approvals.keep_forms(world.services(74.8, **WITH_APPROVAL))
    assert (is_told(label), states(label)) == (False, ["CANCELLED"])

    approved = world.register(80)
    label = f"{model_id}@{approved.version}"
    world.follow(approved, world.foresight, 200)
    world.decide(141, **WITH_APPROVAL)
    approvals.keep_forms(world.services(141, **WITH_APPROVAL))
    kill(ANSWER, Fault.AFTER_ALIAS, 141, version=approved.version, **asking)
    kill(ANSWER, Fault.APPROVAL_ANSWERED, 141, version=approved.version, **asking)
    approvals.keep_forms(world.services(141.1, **WITH_APPROVAL))
    assert (is_told(label), states(label)) == (False, ["CANCELLED"])
    assert world.services(0).ledger.promotions.champion(model_id) == approved.version
    assert audited(model_id).count("promotion_committed") == 1
    check(model_id)
