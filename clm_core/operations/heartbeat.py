"""Heartbeat to a monitor outside of the machine, after each maintenance that succeeded."""

from pydantic import SecretStr

from clm_core.domain.errors import DeliveryFailed

TIMEOUT_SECONDS = 10.0


def send(url: SecretStr | None) -> None:
    """GET the address of the settings, if there is one.

    Raises:
        DeliveryFailed: no answer, or a status other than success; the message hides the address.
        SecretUnavailable: the address is a reference that cannot be read.
    """
    import httpx

    if url is None:
        return
    address = url.get_secret_value()
    try:
        answer = httpx.get(address, timeout=TIMEOUT_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        raise DeliveryFailed(f"no answer ({type(error).__name__})") from None
    if not answer.is_success:
        raise DeliveryFailed(f"the monitor answered with status {answer.status_code}")
