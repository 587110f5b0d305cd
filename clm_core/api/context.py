"""Dependencies available to every route."""

from typing import Annotated

from fastapi import Depends, Request

from clm_core.api.dispatch_soon import DispatchSoon
from clm_core.platform.rate_limits import RateLimits
from clm_core.services import Services


def _services(request: Request) -> Services:
    connected: Services = request.app.state.services
    return connected


def _limits(request: Request) -> RateLimits:
    limits: RateLimits = request.app.state.limits
    return limits


def _dispatch_soon(request: Request) -> DispatchSoon:
    dispatch_soon: DispatchSoon = request.app.state.dispatch_soon
    return dispatch_soon


Connected = Annotated[Services, Depends(_services)]
Counted = Annotated[RateLimits, Depends(_limits)]
Dispatch = Annotated[DispatchSoon, Depends(_dispatch_soon)]
"""Requests a dispatch of pending messages and jobs."""
