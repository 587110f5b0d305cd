"""REST API without rules of its own: authenticates, calls the core and returns the answer."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from clm_core.api import description
from clm_core.api.admission import Admission
from clm_core.api.auth import Open, guards
from clm_core.api.bodies import BodyLimits, StrictRoute
from clm_core.api.dispatch_soon import DispatchSoon
from clm_core.api.envelope import Envelope
from clm_core.api.methods import Methods
from clm_core.api.oidc import Provider
from clm_core.api.pages import problems
from clm_core.api.pages.forms import page_guards
from clm_core.api.pages.sessions import Sessions, session_key
from clm_core.api.pages.surroundings import Surroundings
from clm_core.api.route_table import ENDLESS, PAGES, ROUTES, Route
from clm_core.api.routes.events import OutboxWatch
from clm_core.domain.vocabulary import Role
from clm_core.platform.rate_limits import RateLimits
from clm_core.services import Services


def create_app(services: Services) -> FastAPI:
    """Application over open services, which the caller closes.

    Raises:
        RuntimeError: a route is missing from the route table, so no access is declared, or two routes have
            one name in the description.
    """
    settings = services.settings.api
    app = FastAPI(
        title="CLM",
        description="Retrains, judges and promotes trading models. Create a token with `clm tokens create`.",
        version=version("continuous-learning-manager"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=problems.handlers(PAGES),
    )
    app.state.services = services
    app.state.limits = RateLimits(settings.failed_logins_per_minute, settings.writes_per_minute)
    app.state.provider = Provider(settings.oidc) if settings.oidc else None
    app.state.sessions = Sessions(
        session_key(services.settings.home), services.ledger.tokens, app.state.provider, services.clock
    )
    app.state.surroundings = Surroundings(services.settings.home)
    app.state.dispatch_soon = DispatchSoon(services.settings.home)
    app.state.streams = 0
    app.state.outbox_watch = OutboxWatch()
    app.router.route_class = StrictRoute
    for route in ROUTES:
        _add(app, route)
    require_policies(app)
    description.describe(app, ROUTES, settings.public_url)
    app.add_middleware(Admission)
    app.add_middleware(Methods, routes=[(each.method, each.path) for each in ROUTES], endless=ENDLESS)
    # wraps both: a body still arriving takes no place
    app.add_middleware(
        BodyLimits,
        max_bytes=settings.max_body_bytes,
        seconds=settings.body_seconds,
        forms=[route.path for route in ROUTES if route.page and route.writes],
        any_kind=[route.path for route in ROUTES if route.open_to is Open.SIGNER],
    )
    # added last: wraps the body limits
    app.add_middleware(Envelope, hosts=settings.hosts)
    return app


def require_policies(app: FastAPI) -> None:
    """Refuses an application with a path or method that is missing from the route table, or ambiguous."""
    known = {(route.method, route.path) for route in ROUTES}
    served = {
        (method, getattr(route, "path", ""))
        for route in app.routes
        for method in getattr(route, "methods", None) or {"any"}
    }
    names = [description.operation(route) for route in ROUTES if route.documented]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise RuntimeError(
            f"{sorted(repeated)} name several routes: give each a name in clm_core.api.description"
        )
    if undeclared := served - known:
        raise RuntimeError(f"{sorted(undeclared)} are not in clm_core.api.route_table: declare access there")


def _add(app: FastAPI, route: Route) -> None:
    more: dict[str, Any] = {} if route.answer is None else {"response_model": route.answer}
    if route.kind is not None:
        more["response_class"] = route.kind
    app.add_api_route(
        route.path,
        route.endpoint,
        methods=[route.method],
        status_code=route.status,
        dependencies=_guards(route),
        responses=description.problems(route),
        include_in_schema=route.documented,
        operation_id=description.operation(route),
        tags=[description.tag(route)],
        summary=(route.endpoint.__doc__ or "").partition(".")[0],
        **more,
    )


def _guards(route: Route) -> list[Any]:
    if route.page and isinstance(route.open_to, Role):
        return page_guards(route.open_to, route.writes)
    return guards(route.open_to, route.writes)
