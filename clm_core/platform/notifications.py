"""Notifications by apprise: Slack, PagerDuty, mail, JSON and other services, each named by a URL."""

from typing import TYPE_CHECKING

from clm_core.domain.alerts import HAPPENINGS, Alert, RaisedAlert
from clm_core.domain.errors import DeliveryFailed, SettingsError

if TYPE_CHECKING:
    from apprise import Apprise


def receiver(url: str) -> "Apprise":
    """The receiver named by a URL; nothing is sent.

    Raises:
        SettingsError: apprise does not understand the URL.
    """
    import apprise

    made = apprise.Apprise(asset=apprise.AppriseAsset(app_id="CLM", http_redirects=False))
    if not made.add(url):
        raise SettingsError(
            "apprise does not understand a URL under [alerts] urls: "
            "see https://github.com/caronc/apprise/wiki for the URL of each service."
        )
    return made


def send(url: str, alert: Alert) -> None:
    """Send an alert to the receiver named by the URL, with a time limit of a few seconds.

    An alert that could not be recorded has no number.

    Raises:
        SettingsError: apprise does not understand the URL.
        DeliveryFailed: the receiver did not accept the alert.
    """
    import apprise

    number = f" #{alert.seq}" if isinstance(alert, RaisedAlert) else ""
    harmless = alert.kind in HAPPENINGS
    accepted = receiver(url).notify(
        title=f"CLM{number}: {alert.kind.replace('_', ' ')}, {alert.subject}",
        body=f"{alert.message}\n{alert.at:%Y-%m-%d %H:%M:%S} UTC",
        notify_type=apprise.NotifyType.WARNING if harmless else apprise.NotifyType.FAILURE,
        body_format=apprise.NotifyFormat.TEXT,
    )
    if not accepted:
        raise DeliveryFailed(
            "the receiver is down, or the URL has a wrong host or token: the alert was not accepted"
        )
