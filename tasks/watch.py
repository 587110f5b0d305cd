from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle import watch
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="watch production versions")
def watch_production() -> watch.WatchReport:
    return watch.run(services())
