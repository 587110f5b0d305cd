from clm_core.domain.errors import DeliveryFailed, SecretUnavailable
from clm_core.operations import heartbeat
from clm_core.services import services
from tasks.run_page import run_logger
from tasks.step import step


@step()
def send_heartbeat() -> None:
    """A heartbeat that is not accepted fails no run: the service that misses it raises the alarm."""
    try:
        heartbeat.send(services().settings.alerts.heartbeat_url)
    except (DeliveryFailed, SecretUnavailable) as error:
        run_logger().warning("The heartbeat was not accepted: %s", error)
