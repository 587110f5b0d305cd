import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.deliveries import ReceiverState, StreamName
from clm_core.ledger.receivers import ALERTS
from clm_core.services import Services

NAME = "alerts json 0badc0de"


@pytest.fixture
def receiver(home: Path, services: Services, monkeypatch: pytest.MonkeyPatch) -> str:
    """It has not taken the newest alert."""
    monkeypatch.setenv("CLM_HOME", str(home))
    now = services.clock()
    alert = Alert(kind=AlertKind.JOB_FAILED, subject="job", message="[red]out of memory[/red]", at=now)
    services.alerts.record(alert)
    while state_of(services).waiting > 1:
        with services.receivers.turn(NAME, ALERTS, now) as turn:
            assert turn is not None
            turn.accepted()
    with services.receivers.turn(NAME, ALERTS, now) as turn:
        assert turn is not None
        turn.failed("[bold]no[/bold]", now)
    return NAME


def state_of(services: Services) -> ReceiverState:
    with services.receivers.turn(NAME, ALERTS, services.clock()):
        return services.receivers.state(NAME)


def clm(*words: str) -> str:
    return CliRunner().invoke(app, ["deliveries", *words], catch_exceptions=False).stdout


def test_show_lists_skipped_resent_and_forgotten_events_of_a_receiver(receiver: str) -> None:
    assert "[bold]no[/bold]" in clm("show")
    assert "job_failed job" in clm("skip", "0badc0de", "--reason", "nobody is on call")
    state_of_all = json.loads(clm("show", "--json"))
    [state] = [each for each in state_of_all["receivers"] if each["name"] == receiver]
    assert (state["stream"], state["waiting"], state["given_up"]) == (StreamName.ALERTS, 0, 1)
    [letter] = [each for each in state_of_all["dead_letters"] if each["receiver"] == receiver]
    assert letter["error"].endswith("nobody is on call")
    assert "1 are sent once more" in clm("retry", receiver)
    assert "sent once more by the next maintenance" in clm("show")
    assert json.loads(clm("retry", receiver, "--json")) == {"receiver": receiver, "retried": 1}
    assert "1 dead letters are forgotten" in clm("forget", receiver)
    assert json.loads(clm("forget", receiver, "--json"))["forgotten"] == 0
