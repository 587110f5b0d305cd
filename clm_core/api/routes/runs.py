"""Work for a worker at a person's request: passes at once, and searches; answered with the run in Prefect."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.idempotency import Idempotent, IdempotentRequest, json_response
from clm_core.api.pages.surroundings import Surroundings
from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotAllowed
from clm_core.domain.evolution import EvolveRequest
from clm_core.domain.jobs import UNNAMED
from clm_core.domain.requested_runs import RequestedRun
from clm_core.domain.searches import SearchRequest
from clm_core.domain.spellings import TIMEFRAMES, TimeframeName
from clm_core.domain.strategy_search import StrategySearchRequest
from clm_core.domain.tuning import StudySoFar, TuneRequest
from clm_core.platform.prefect_runs import CreatedRun, RunState
from clm_core.services import Services
from clm_core.triggers.requested_runs import request_run, state_of

SearchBody = TypeVar("SearchBody", TuneRequest, EvolveRequest, StrategySearchRequest)


class PassRequest(BaseModel):
    """A pass over everything; no field is needed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ShadowRequest(PassRequest):
    """A shadow pass."""

    timeframe: TimeframeName | None = Field(
        default=None,
        description="Only models with bars of this length; null: all models.",
        json_schema_extra={"enum": [*TIMEFRAMES, None]},
    )

    @field_validator("timeframe")
    @classmethod
    def _is_known(cls, timeframe: str | None) -> str | None:
        if timeframe is not None and timeframe not in TIMEFRAMES:
            raise ValueError(f"no length of a bar: write one of {', '.join(TIMEFRAMES)}")
        return timeframe


WHOLE_PASS = PassRequest()
WHOLE_SHADOW_PASS = ShadowRequest()


class RunReport(BaseModel):
    """State of a run in Prefect."""

    run_id: UUID
    state: RunState
    description: str
    """Prefect's name of the state, with the message."""
    page: str | None
    """Address of the run's page in Prefect; null where the address of the pages is unknown."""


def _surroundings(request: Request) -> Surroundings:
    surroundings: Surroundings = request.app.state.surroundings
    return surroundings


Pages = Annotated[Surroundings, Depends(_surroundings)]


@dataclass(frozen=True)
class RunRequester:
    """Creates runs in the name of a caller."""

    clm: Services
    actor: Actor
    idempotent: IdempotentRequest
    pages: Surroundings

    def request(
        self,
        flow: str,
        parameters: Mapping[str, Any],
        subject: str | None = None,
        deployment: str | None = None,
    ) -> Response:
        """Answer with the created run; the arguments are those of `request_run`."""
        run = request_run(
            self.clm,
            flow,
            parameters,
            self.actor,
            subject=subject,
            deployment=deployment,
            key=self.idempotent.key,
        )
        answer = RequestedRun(
            run_id=run.id, flow=flow, name=run.name, search=_search(run), page=_page(self.pages, run.id)
        )
        return json_response(answer, status=202)

    def search(self, flow: str, request: SearchRequest | StrategySearchRequest, subject: str) -> Response:
        return self.request(flow, {"request": request.model_dump(mode="json")}, subject)

    def in_own_name(self, body: SearchBody) -> SearchBody:
        """The request in the name of the caller, for the audit.

        Raises:
            NotAllowed: the request names a Ray cluster.
        """
        if body.ray_address is not None:
            raise NotAllowed("A request by REST names no Ray cluster: set RAY_ADDRESS for the workers.")
        said = self.actor.name if body.requested_by in UNNAMED else body.requested_by
        name = said if said == self.actor.name else f"{said}, by the token of {self.actor.name}"
        return body.model_copy(update={"requested_by": name})


def _requester(actor: Caller, clm: Connected, idempotent: Idempotent, pages: Pages) -> RunRequester:
    return RunRequester(clm, actor, idempotent, pages)


Requester = Annotated[RunRequester, Depends(_requester)]


def watch(requester: Requester, body: PassRequest = WHOLE_PASS) -> Response:
    """Check the production versions on the newest bars at once, on a worker; while a check is under way the
    run ends as cancelled."""
    return requester.idempotent(body, lambda: requester.request("watch", {}))


def shadow(requester: Requester, body: ShadowRequest = WHOLE_SHADOW_PASS) -> Response:
    """Record the positions of candidate versions and decide on them at once, on a worker; while a pass is
    under way the run ends as cancelled."""
    parameters = body.model_dump(mode="json")
    deployment = None if body.timeframe is None else f"shadow-{body.timeframe}"
    return requester.idempotent(body, lambda: requester.request("shadow", parameters, deployment=deployment))


def tune(body: TuneRequest, clm: Connected, requester: Requester) -> Response:
    """Search for better training parameters on a worker. A study continues under the same name."""

    def begin() -> Response:
        # imported here, as below: the libraries of models
        from clm_core.search.requested import checked_tuning

        request = checked_tuning(clm, requester.in_own_name(body))
        return requester.search("tune", request, request.model_id)

    return requester.idempotent(body, begin)


def one_study(
    study: Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")], clm: Connected
) -> StudySoFar:
    """A study with the trials so far, under way or ended; the parameters of the best are those to train."""
    from clm_core.search.tuning import study_so_far

    return study_so_far(clm, study)


def evolve(body: EvolveRequest, clm: Connected, requester: Requester) -> Response:
    """Breed better training parameters on a worker. The candidates are proposals only."""

    def begin() -> Response:
        from clm_core.search.requested import checked_evolution

        request = checked_evolution(clm, requester.in_own_name(body))
        return requester.search("evolve", request, request.model_id)

    return requester.idempotent(body, begin)


def evolve_strategies(body: StrategySearchRequest, clm: Connected, requester: Requester) -> Response:
    """Evolve rule strategies by several objectives on a worker. The strategies are proposals only."""

    def begin() -> Response:
        from clm_core.search.requested import checked_strategy_search

        request = checked_strategy_search(clm, requester.in_own_name(body))
        return requester.search("evolve-strategies", request, request.subject)

    return requester.idempotent(body, begin)


def one_run(run_id: UUID, clm: Connected, pages: Pages) -> RunReport:
    """State of a run in Prefect: requested here, of a schedule, or started by hand."""
    run = state_of(clm, run_id)
    return RunReport(run_id=run_id, state=run.state, description=run.description, page=_page(pages, run_id))


def _search(run: CreatedRun) -> str | None:
    """Name of the search; after a crash, the name in the run created before."""
    request = run.parameters.get("request") or {}
    name: str | None = request.get("study") or request.get("name")
    return name


def _page(pages: Surroundings, run_id: UUID) -> str | None:
    prefect = pages.links().prefect
    return None if prefect is None else f"{prefect}/runs/flow-run/{run_id}"
