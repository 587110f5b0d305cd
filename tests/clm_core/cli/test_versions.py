"""`clm show` of a version that was in production."""

import json
from collections.abc import Callable

import promoting
import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.shadow_decisions import (
    ShadowAction,
    ShadowDecision,
    ShadowFigures,
    SingleLookTests,
    TTest,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.OPERATOR)


def test_show_tells_of_the_promotion_and_the_rollback_of_a_version(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    first = make_version(model_id)
    second = make_version(model_id)
    for version in (first, second):
        promoting.promote(services, model_id, version.version, ADA, "tested", services.clock())
    services.promotions.rollback(model_id, ADA, "drawdown", services.clock())
    shown = CliRunner().invoke(app, ["show", f"{model_id}@{second.version}"]).stdout
    lines = [line for line in shown.splitlines() if " in production after " in line]
    assert [line.partition(",")[0] for line in lines] == ["promoted", "rolled back"]
    assert lines[1].endswith(f"{first.version} in production after {second.version}, by ada: drawdown")
    as_json = CliRunner().invoke(app, ["show", f"{model_id}@{second.version}", "--json"]).stdout
    assert [each["kind"] for each in json.loads(as_json)["production_changes"]] == ["promotion", "rollback"]


def test_show_prints_the_usual_tests_of_a_shadow_with_the_warning(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    label = make_version(model_id).version
    paired = TTest(statistic=1.5, degrees_of_freedom=62.0, p_value=0.14, low_bps=-0.4, high_bps=2.8)
    tests = SingleLookTests(days=63, lead_bps=1.2, paired=paired, welch=None, sharpe_difference=None)
    decision = ShadowDecision(
        action=ShadowAction.CONTINUE,
        reasons=("undecided",),
        progress="63 days",
        figures=ShadowFigures(single_look=tests),
    )
    services.ledger.shadow_decisions.record(None, model_id, label, None, decision, services.clock())
    shown = CliRunner().invoke(app, ["show", f"{model_id}@{label}"]).stdout
    assert (
        "not valid when looked at repeatedly: lead +1.20 bps a day (-0.40 to +2.80), paired t-test "
        "p = 0.140, on 63 days\n"
    ) in shown
