from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle import watch
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="look at what serves")
def look() -> watch.WatchReport:
    return watch.run(services())
