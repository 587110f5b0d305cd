"""Alert drill and parts of `make deploy-check`; the drill itself runs there."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import deploy_check  # noqa: E402 - a script beside the package
from drill.alerts import Steps, table  # noqa: E402
from drill.receivers import Message, Place, Received, pagerduty_message, slack_message  # noqa: E402
from drill.rules import alert_rules, shortened  # noqa: E402

SLACK = {"attachments": [{"title": "FIRING ClmHalted", "text": "No version of m serves. ..."}]}
PAGERDUTY = {
    "routing_key": "k",
    "dedup_key": "d",
    "event_action": "resolve",
    "payload": {
        "summary": "No version of m serves.",
        "custom_details": {"firing": "", "resolved": "Labels:\n - alertname = ClmHalted\n"},
    },
}


def quiet(text: str) -> None:
    pass


def test_the_drill_waits_less_than_the_product_and_changes_nothing_else() -> None:
    product = {rule["alert"]: rule for rule in alert_rules()}
    groups = yaml.safe_load(shortened())["groups"]
    drill = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    assert drill.keys() == product.keys()
    changed = {name for name, rule in drill.items() if rule != product[name]}
    assert changed == {"ClmTrainingFailed", "ClmTrainingSlow", "ClmPassStopped", "ClmDeliveriesLate"}
    assert all(
        re.sub(r"\d+", "", rule["expr"]) == re.sub(r"\d+", "", product[name]["expr"])
        for name, rule in drill.items()
    )


def test_every_alert_of_the_product_has_a_fault_in_the_drill() -> None:
    script = (SCRIPTS / "alert_drill.py").read_text()
    assert [rule["alert"] for rule in alert_rules() if f'"{rule["alert"]}"' not in script] == []


def test_the_documented_table_has_every_alert_with_its_seconds() -> None:
    page = (SCRIPTS.parent / "docs" / "how-to" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Clm\w+)` \| .+ \| \d+ s, Slack.* \| .+ \| \d+ s \| .+ \|$", page, re.MULTILINE)
    assert set(rows) == {rule["alert"] for rule in alert_rules()}


def test_a_step_is_timed_by_its_last_receiver_and_by_what_concerns_it() -> None:
    received = Received()
    steps = Steps(received, quiet)
    step = steps.begin("ClmHalted", "`clm halt`", "`clm rollback`", "of m", began=100.0)
    for place, text, at in (
        (Place.SLACK, "No version of other serves", 101.0),
        (Place.SLACK, "No version of m serves", 110.0),
        (Place.PAGERDUTY, "No version of m serves", 112.0),
    ):
        received.messages.append(Message(place, "ClmHalted", True, text, at))
    steps.wait_fired(step)
    step.undone = 120.0
    assert step.problem == "ClmHalted was not resolved"
    for message in received.messages[1:]:
        received.messages.append(Message(message.place, message.alert, False, message.text, message.at + 20))
    steps.wait_resolved(step)
    assert (step.fired_seconds, step.resolved_seconds, step.problem) == (12.0, 12.0, None)
    assert steps.others() == ["ClmHalted (No version of other serves)"]
    assert "| `ClmHalted` | `clm halt` | 12 s, Slack and PagerDuty |" in table([step.row()])


def test_messages_of_slack_and_pagerduty_are_read() -> None:
    fired = slack_message(SLACK, 1.0)
    ended = pagerduty_message(PAGERDUTY, 2.0)
    assert [(each.alert, each.firing) for each in (fired, ended)] == [
        ("ClmHalted", True),
        ("ClmHalted", False),
    ]
    with pytest.raises(KeyError, match="dedup_key"):
        pagerduty_message(PAGERDUTY | {"dedup_key": ""}, 2.0)


def test_a_part_without_its_tools_is_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    monkeypatch.setattr(sys, "argv", ["deploy_check.py", "--only", "prometheus", "alertmanager"])
    assert deploy_check.main() == 0
    printed = capsys.readouterr().out
    assert "prometheus: SKIPPED, needs promtool (apt-get install prometheus)" in printed
    monkeypatch.setattr(sys, "argv", ["deploy_check.py", "--all", "--only", "prometheus"])
    assert deploy_check.main() == 1


def test_a_part_that_fails_leaves_the_others_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fails, passes = ((sys.executable, "-c", f"raise SystemExit({status})") for status in (3, 0))
    parts = [deploy_check.CheckPart(name, "", (command,)) for name, command in (("a", fails), ("b", passes))]
    monkeypatch.setattr(deploy_check, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["deploy_check.py"])
    results = [deploy_check.result_of(part) for part in parts]
    assert [str(result.outcome) for result in results] == ["FAILED", "passed"]
    assert results[0].detail.endswith("ended with status 3")
    assert deploy_check.main() == 1
