"""Messages of a training through files: each once, whole lines, and errors by their kind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clm_core.domain.errors import LookAhead, NotEnoughBars
from clm_core.platform.interpreter import MODULE
from clm_core.retraining.training_messages import (
    CALLER,
    MESSAGES,
    MessageReader,
    MessageWriter,
    alive,
    is_done,
)


def ignore(step: str, share: float) -> None:
    pass


def test_messages_are_read_once_and_whole(tmp_path: Path) -> None:
    reader = MessageReader(tmp_path)
    writer = MessageWriter(tmp_path)
    assert list(reader.read()) == []
    writer.send(step="Final fit", share=0.5)
    with (tmp_path / MESSAGES).open("a") as file:
        file.write('{"done": ')
    assert list(reader.read()) == [{"step": "Final fit", "share": 0.5}]
    with (tmp_path / MESSAGES).open("a") as file:
        file.write("true}\n")
    assert list(reader.read()) == [{"done": True}]
    assert list(reader.read()) == []


def test_progress_is_sent_at_every_new_step_and_at_times_within_a_step(tmp_path: Path) -> None:
    announce = MessageWriter(tmp_path).announcer()
    for share in range(100):
        announce("Walk-forward", share / 100)
    announce("Final fit", 1.0)
    lines = [json.loads(line) for line in (tmp_path / MESSAGES).read_text().splitlines()]
    assert [line["step"] for line in lines] == ["Walk-forward", "Final fit"]


@pytest.mark.parametrize("kind", [NotEnoughBars, LookAhead], ids=["plain", "with arguments of its own"])
def test_an_error_arrives_with_its_kind_and_message(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="give more days"):
        is_done({"error": kind.__name__, "message": "give more days"}, ignore)
    assert is_done({"done": True}, ignore)
    assert not is_done({"step": "Final fit", "share": 0.5}, ignore)


def test_a_caller_shows_that_it_lives(tmp_path: Path) -> None:
    seen = set()
    with alive(tmp_path, 0.3):
        while len(seen) < 3:
            if (tmp_path / CALLER).exists():
                seen.add((tmp_path / CALLER).read_text())
    assert {"1", "2"} <= seen | {""}


def test_a_training_whose_caller_is_silent_ends_and_says_so(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clm_core.retraining import training_messages as m;"
        "m.end_without_caller(m.MessageWriter(Path(sys.argv[1])), 0.3)"
    )
    (tmp_path / CALLER).write_text("1")
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, env=os.environ, check=False
    )
    assert ended.returncode == 1
    assert b"gave no sign of life for 0.3 s" in ended.stderr
    assert list(MessageReader(tmp_path).read())[-1]["error"] == "TrainingFailed"


def test_a_process_without_its_folder_says_that_the_volume_is_another(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*MODULE, "clm_core.retraining.training", str(tmp_path), "--caller-silence", "9"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == 1
    assert b"has no spec.json: the folder of the training is not on the volume" in ended.stderr
