"""What a route may ask for besides its parameters."""

from typing import Annotated

from fastapi import Depends, Request

from clm_core.api.dispatch_soon import Nudge
from clm_core.api.limits import Limits
from clm_core.services import Services


def _services(request: Request) -> Services:
    connected: Services = request.app.state.services
    return connected


def _limits(request: Request) -> Limits:
    limits: Limits = request.app.state.limits
    return limits


def _nudge(request: Request) -> Nudge:
    nudge: Nudge = request.app.state.nudge
    return nudge


Connected = Annotated[Services, Depends(_services)]
Counted = Annotated[Limits, Depends(_limits)]
Drain = Annotated[Nudge, Depends(_nudge)]
"""Have what waits answered and started soon."""
