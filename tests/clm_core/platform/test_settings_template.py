"""The commented settings file that `clm init` writes."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from clm_core.domain.setting_keys import fields
from clm_core.operations.settings_init import NOT_IN_FILE
from clm_core.platform.settings_template import commented_settings
from clm_core.settings import Settings

WRITTEN = commented_settings(Settings, leave_out=NOT_IN_FILE)
TABLE = re.compile(r"# ?\[{1,2}([\w.]+)\]{1,2}$")
VALUE = re.compile(r"# ?(\w+) = .")


def settings_of(group: type[BaseModel], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Keys of all settings; those of lists and tables of groups have the name of the list or table."""
    keys = set()
    for key, annotation in fields(group, above):
        members = set[tuple[str, ...]]()
        for part in re.findall(r"clm_core[\w.]+", str(annotation)):
            module, _, name = part.rpartition(".")
            record = getattr(__import__(module, fromlist=[name]), name)
            if isinstance(record, type) and issubclass(record, BaseModel):
                members |= settings_of(record, key)
        keys |= members or {key}
    return keys


def written_settings() -> dict[tuple[str, ...], str]:
    """Lines of the settings, with the comment above each."""
    table: tuple[str, ...] = ()
    comments = {}
    lines = WRITTEN.splitlines()
    for number, line in enumerate(lines):
        if header := TABLE.match(line):
            table = tuple(part for part in header[1].split(".") if part != "NAME")
        elif value := VALUE.match(line):
            comments[*table, value[1]] = lines[number - 1]
    return comments


def test_the_file_as_written_sets_nothing() -> None:
    assert tomllib.loads(WRITTEN) == {}


def test_the_file_uncommented_has_every_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uncommented = re.sub(r"(?m)^#(?=[\w\[])", "", WRITTEN)
    (tmp_path / "clm.toml").write_text(uncommented)
    monkeypatch.delenv("CLM_CONFIG", raising=False)
    assert Settings(home=tmp_path) == Settings(home=tmp_path / "empty").model_copy(update={"home": tmp_path})
    given = tomllib.loads(uncommented)
    assert given["triggers"]["manual"]["daily_budget_per_model"] == 100
    assert "# [[universe]]" in WRITTEN


def test_every_setting_is_in_the_file() -> None:
    expected = {key for key in settings_of(Settings) if key[0] not in NOT_IN_FILE}
    assert expected - written_settings().keys() == set()
    assert len(expected) > 80


def test_every_setting_in_the_file_is_explained() -> None:
    unexplained = [
        ".".join(key)
        for key, above in written_settings().items()
        if not above.startswith("# ") or TABLE.match(above) or VALUE.match(above)
    ]
    assert unexplained == []
