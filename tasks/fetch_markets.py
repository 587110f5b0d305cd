from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core import feed
from clm_core.services import services


@task(cache_policy=NO_CACHE)
def fetch_markets() -> feed.FeedReport:
    return feed.run(services())
