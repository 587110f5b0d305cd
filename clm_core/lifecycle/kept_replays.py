"""Results of replays, kept beside the pages among the reports of a home."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from clm_core.backtest import chart_library
from clm_core.domain.errors import NotFound
from clm_core.domain.kept_replays import KeptReplay, KeptReplays
from clm_core.domain.replays import ReplayResult
from clm_core.explain.replay_sections import headline

FOLDER = "replays"


def keep(reports: Path, page: Path, result: ReplayResult, name: str | None = None) -> KeptReplay:
    """Keep the result of a replay.

    Args:
        reports: reports of the home.
        page: page of the replay among the reports, just written.
        name: name to find the result by; by default the name of the page.
    """
    kept = KeptReplay(
        name=name or page.stem,
        at=datetime.fromtimestamp(page.stat().st_mtime, UTC),
        digest=result.digest,
        headlines=tuple(headline(each) for each in result.policies),
        request=result.request,
        page=page.stem,
        result=result,
    )
    chart_library.write_library(reports)
    file = reports / FOLDER / f"{kept.name}.json"
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(kept.model_dump_json(), encoding="utf-8")
    unfinished.replace(file)
    return kept


def kept_replays(reports: Path) -> KeptReplays:
    """All kept replays, newest first."""
    kept = list[KeptReplay]()
    unread = list[str]()
    for file in sorted((reports / FOLDER).glob("*.json")):
        try:
            kept.append(KeptReplay.model_validate_json(file.read_bytes()))
        except ValidationError:
            unread.append(file.stem)
    newest = sorted(kept, key=lambda each: each.at, reverse=True)
    return KeptReplays(replays=tuple(each.listed for each in newest), unread=tuple(unread))


def kept_replay(reports: Path, name: str) -> KeptReplay:
    """A kept replay with the result.

    Raises:
        NotFound: no result has the name, or another release kept the result.
    """
    file = reports / FOLDER / f"{name}.json"
    try:
        return KeptReplay.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no result {name} of a replay: a run has one at its end, see `GET /clm/runs/{name}`; "
            "`clm replays` lists the results."
        ) from error
    except ValidationError as error:
        raise NotFound(
            f"The result {name} was kept by another release of this software: replay again."
        ) from error


def page_of(reports: Path, name: str) -> Path:
    """Page of a kept replay.

    Raises:
        NotFound: no result has the name, or the page was deleted.
    """
    page = reports / FOLDER / f"{kept_replay(reports, name).page}.html"
    if not page.is_file():
        raise NotFound(f"The page {page.name} of the replay {name} was deleted: replay again.")
    return page
