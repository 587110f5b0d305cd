from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.services import services
from clm_core.triggers.dispatch import DispatchResult, dispatch_pending


@task(cache_policy=NO_CACHE)
def dispatch() -> DispatchResult:
    return dispatch_pending(services())
