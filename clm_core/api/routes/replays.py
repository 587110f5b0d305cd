"""Replays of the past: requested for a worker, and their results."""

from typing import Annotated

from fastapi import Path, Response
from fastapi.responses import HTMLResponse

from clm_core.api.context import Connected
from clm_core.api.routes.models import complete_page
from clm_core.api.routes.runs import Requester
from clm_core.domain.errors import PolicyError, ReplayRefused
from clm_core.domain.kept_replays import KeptReplay, KeptReplays
from clm_core.domain.kinds import model_id
from clm_core.domain.replays import ReplayRequest
from clm_core.services import Services

ReplayInPath = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$",
        description="Id of the run, or the name of the page.",
        examples=["6f1c3f0e-3c69-4b59-8f4e-0a8a1c3c9a51"],
    ),
]


def replay(body: ReplayRequest, clm: Connected, requester: Requester) -> Response:
    """Replay a stretch of the past on a worker; changes nothing in the home. Policies are named by preset."""

    def begin() -> Response:
        _require_possible(clm, body)
        subject = model_id(body.kind, body.market, body.timeframe)
        return requester.request("replay", {"request": body.model_dump(mode="json")}, subject)

    return requester.idempotent(body, begin)


def list_replays(clm: Connected) -> KeptReplays:
    """Kept replays, newest first."""
    from clm_core.lifecycle.kept_replays import kept_replays

    return kept_replays(clm.reports)


def one_replay(replay: ReplayInPath, clm: Connected) -> KeptReplay:
    """Result of a replay: curves, events and counts under each policy."""
    from clm_core.lifecycle.kept_replays import kept_replay

    return kept_replay(clm.reports, replay)


def page(replay: ReplayInPath, clm: Connected) -> HTMLResponse:
    """Page of a replay, with curves and time line."""
    from clm_core.lifecycle.kept_replays import page_of

    return complete_page(page_of(clm.reports, replay), clm)


def _require_possible(clm: Services, request: ReplayRequest) -> None:
    # imported here: the libraries of models
    from clm_core.lifecycle.replay import require_possible

    files = [each for each in request.policies if each is not None and each.endswith(".toml")]
    if files:
        raise ReplayRefused(
            f"A request by REST names presets, and not the file {files[0]}: `clm replay` reads files of "
            "policies."
        )
    try:
        require_possible(clm.settings, clm.market, request)
    except PolicyError as error:
        raise ReplayRefused(str(error)) from error
