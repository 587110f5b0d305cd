from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.errors import DeliveryFailed, SecretUnavailable
from clm_core.operations import heartbeat
from clm_core.services import services


@task(cache_policy=NO_CACHE)
def send_heartbeat() -> None:
    """A heartbeat that is not accepted fails no run: the service that misses it raises the alarm."""
    try:
        heartbeat.send(services().settings.alerts.heartbeat_url)
    except (DeliveryFailed, SecretUnavailable) as error:
        get_run_logger().warning("The heartbeat was not accepted: %s", error)
