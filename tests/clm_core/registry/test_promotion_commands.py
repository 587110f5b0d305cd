"""Commands that change the production version."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clm_core.cli.app import app
from clm_core.domain.errors import ConflictError, PromotionRefused
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]
Type = Callable[..., Result]


@pytest.fixture
def clm(services: Services, home: Path) -> Type:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"CLM_HOME": str(home)})

    return run


def name(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def test_promote_rollback_and_retire_print_the_new_state(
    clm: Type, make_version: MakeVersion, model_id: str, check: Callable[[str], None]
) -> None:
    a, b, c = (make_version(model_id) for _ in range(3))
    first = clm("promote", name(a), "--expect", "nothing")
    assert first.stdout == f"{model_id}: {a.version} is in production (promotion), before nothing.\n"
    clm("promote", name(b), "--expect", a.version)
    [back] = json.loads(clm("rollback", model_id, "--reason", "drawdown", "--json").stdout)
    assert (back["kind"], back["to_version"], back["reason"]) == ("rollback", a.version, "drawdown")
    assert clm("retire", name(c)).stdout == f"{model_id} {c.version} is retired.\n"
    assert "nothing to do" in clm("reconcile", model_id).stdout
    check(model_id)


def test_a_conflict_and_a_refusal_end_the_command(
    clm: Type, make_version: MakeVersion, model_id: str
) -> None:
    version, failed = make_version(model_id), make_version(model_id, sharpe=0.2)
    assert isinstance(clm("promote", name(version), "--expect", "v1").exception, ConflictError)
    assert isinstance(clm("promote", name(failed)).exception, PromotionRefused)
    forced = clm("promote", name(failed), "--force", "--reason", "paper trading")
    assert "Forced until" in forced.stdout


def test_reconcile_puts_an_alias_moved_by_hand_back_or_adopts_the_move(
    clm: Type, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    a, b = make_version(model_id), make_version(model_id)
    clm("promote", name(a))
    services.registry.point(model_id, "production", b.mlflow_version)
    assert f"the alias is moved back, {a.version} is in production" in clm("reconcile").stdout
    services.registry.point(model_id, "production", b.mlflow_version)
    adopted = clm("reconcile", model_id, "--adopt", "--reason", "meant so")
    assert adopted.stdout == f"{model_id}: {b.version} is in production (adoption), before {a.version}.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("promote", "v20251204_143022"), "is not MODEL@VERSION"),
        (("reconcile", "--adopt", "--reason", "meant so"), "name the model"),
    ],
    ids=["no model", "adopt everything"],
)
def test_a_mistyped_command_prints_the_correct_form(
    clm: Type, arguments: tuple[str, ...], expected: str
) -> None:
    answer = clm(*arguments)
    assert answer.exit_code == 2
    assert expected in answer.stderr
