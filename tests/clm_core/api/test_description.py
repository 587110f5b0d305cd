"""Responses match the OpenAPI description, for requests within the description and outside."""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from clm_core.api.route_table import ROUTES, Route
from clm_core.domain.vocabulary import Role

Client = Callable[[Role | None], TestClient]


DESCRIBED = [route for route in ROUTES if route.documented and route.path != "/clm/events"]
"""Documented routes except the endless stream of events, see `test_events`."""


@pytest.fixture(scope="module")
def description(api: FastAPI) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", api)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route", DESCRIBED, ids=lambda route: f"{route.method} {route.path}")
def test_every_response_to_every_role_matches_the_description(
    route: Route, mode: GenerationMode, description: Any, client: Client
) -> None:
    cases = description[route.path][route.method].as_strategy(generation_mode=mode)

    @settings(max_examples=8, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(cases)
    def holds(case: Any) -> None:
        for role in (*Role, None):
            credentials = client(role).headers.get("authorization")
            # a valid request may still be refused, such as a symbol without bars
            case.call_and_validate(
                headers={} if credentials is None else {"Authorization": credentials},
                excluded_checks=[positive_data_acceptance],
            )

    try:
        holds()
    except Unsatisfiable:
        pytest.skip("nothing about this request can be wrong")
