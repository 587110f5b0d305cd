"""Commands that change the production version."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clm_core.cli.app import app
from clm_core.domain.errors import ConflictError, PromotionRefused, SettingsError
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]
Type = Callable[..., Result]


POLICY = """
version = 1
preset = "thresholds-only"
[presets.thresholds-only]
verdict_days = 3650
"""


@pytest.fixture
def clm(services: Services, home: Path) -> Iterator[Type]:
    """Runs a command on the home, whose settings file names a policy without evidence."""
    (home / "policy.toml").write_text(POLICY)
    settings = home / "clm.toml"
    settings.write_text('[policy]\nfile = "policy.toml"\n')

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"CLM_HOME": str(home)})

    yield run
    settings.unlink()


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
    assert json.loads(clm("retire", name(c), "--json").stdout)["status"] == "retired"
    assert "nothing to do" in clm("reconcile", model_id).stdout
    check(model_id)


def test_halt_and_hard_stop_print_the_new_state(
    clm: Type, make_version: MakeVersion, model_id: str, check: Callable[[str], None], services: Services
) -> None:
    version = make_version(model_id)
    clm("promote", name(version))
    off = clm("hard-stop", name(version), "--off-for", "3", "--reason", "known").stdout
    assert off.startswith(f"The hard stop of {model_id} {version.version} is off until ")
    until = services.ledger.exemptions.until(version)
    assert until is not None
    assert until > services.clock()
    again = clm("hard-stop", name(version), "--off-for", "3", "--reason", "known", "--json").stdout
    assert json.loads(again)["off_until"] > until.isoformat()
    on = clm("hard-stop", name(version), "--off-for", "0", "--reason", "over").stdout
    assert on == f"The hard stop of {model_id} {version.version} is on.\n"
    assert clm("halt", model_id, "--reason", "exchange down").stdout == (
        f"{model_id}: halted, NOTHING IS IN PRODUCTION, before {version.version}. "
        f"Put a version back with: clm rollback {model_id} --to {version.version}\n"
    )
    check(model_id)


def test_a_conflict_and_a_refusal_end_the_command(
    clm: Type, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    failed = make_version(model_id, sharpe=0.2)
    assert isinstance(clm("promote", name(version), "--expect", "v1").exception, ConflictError)
    assert isinstance(clm("promote", name(failed)).exception, PromotionRefused)
    forced = clm("promote", name(failed), "--force", "--reason", "paper trading")
    assert "Forced until" in forced.stdout


def test_a_promotion_takes_no_policy_from_a_variable_and_changes_nothing(
    clm: Type, make_version: MakeVersion, model_id: str, home: Path, tmp_path: Path
) -> None:
    version = make_version(model_id, sharpe=0.2)
    lax = tmp_path / "lax.toml"
    lax.write_text(POLICY + "[presets.thresholds-only.criteria]\nmin_sharpe_ratio = 0.1\n")
    environment = {"CLM_HOME": str(home), "CLM_POLICY__FILE": str(lax)}
    refused = CliRunner().invoke(app, ["promote", name(version)], env=environment)
    assert isinstance(refused.exception, SettingsError)
    assert "CLM_POLICY__FILE names another gate policy" in str(refused.exception)
    assert "Unset the variable" in str(refused.exception)
    same = {"CLM_HOME": str(home), "CLM_POLICY__FILE": str(home / "policy.toml")}
    good = make_version(model_id)
    assert CliRunner().invoke(app, ["promote", name(good)], env=same).exit_code == 0


def test_reconcile_puts_an_alias_moved_by_hand_back_or_adopts_the_move(
    clm: Type, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    a = make_version(model_id)
    b = make_version(model_id)
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
