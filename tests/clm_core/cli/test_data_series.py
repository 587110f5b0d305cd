import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from clm_core.cli import data
from clm_core.domain.errors import InvalidSeries

CSV = """week,published,index
2024-01-01,2024-01-10T08:00Z,5.5
2024-01-08,2024-01-17T08:00Z,5.7
2024-01-01,2024-01-17T08:00Z,5.4
"""
COLUMNS = ("--time-column", "week", "--known-column", "published", "--value-column", "index")
Run = Callable[..., Result]


@pytest.fixture
def clm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "console", Console(width=200))

    def run(*words: object) -> Result:
        return CliRunner().invoke(data.app, [str(word) for word in words], catch_exceptions=False)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "attention.csv"
    path.write_text(CSV)
    return path


def test_a_series_is_imported_under_a_name_and_listed_after_the_bars(clm: Run, file: Path) -> None:
    imported = clm(
        "import", "--as", "series", "attention", file, *COLUMNS, "--timezone", "UTC", "--max-age", "14d"
    )
    listed = clm("list").output

    row = "attention   all     2024-01-01  2024-01-08       3          1  2024-01-17 08:00   336 h"
    assert row in imported.output
    assert listed.index("BTCUSD 1h") < listed.index(row)
    [stored] = json.loads(clm("series", "--json").stdout)
    assert (stored["name"], stored["symbol"], stored["snapshots"][0]["values"]) == ("attention", None, 3)


def test_a_series_without_the_time_known_is_refused_and_a_stated_delay_is_taken(clm: Run, file: Path) -> None:
    columns = ("--time-column", "week", "--value-column", "index", "--timezone", "UTC")
    file.write_text("week,index\n2024-01-01,5.5\n2024-01-08,5.7\n")
    with pytest.raises(InvalidSeries, match=r"--known-column COLUMN, or state the delay .*--known-after 8h"):
        clm("import", "--as", "series", "attention", file, *columns)

    assert clm("import", "--as", "series", "attention", file, *columns, "--known-after", "9d").exit_code == 0
    [stored] = json.loads(clm("series", "--json").stdout)
    assert stored["snapshots"][0]["known_until"] == "2024-01-17T00:00:00Z"


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        pytest.param(("--as", "series", "attention.csv"), "--as series NAME FILE", id="no name"),
        pytest.param(
            ("attention", "attention.csv", "--symbol", "X", "--timeframe", "1h"), "FILE --symbol", id="name"
        ),
        pytest.param(("attention.csv",), "FILE --symbol SYMBOL --timeframe", id="no symbol"),
    ],
)
def test_missing_words_are_answered_with_the_usage(clm: Run, words: tuple[str, ...], usage: str) -> None:
    result = clm("import", *words)

    assert result.exit_code == 2
    assert usage in " ".join(result.output.replace("│", " ").split())


def test_without_series_the_list_says_how_to_add_one(clm: Run) -> None:
    assert "`clm data import --as series NAME FILE` adds one" in clm("series").output
