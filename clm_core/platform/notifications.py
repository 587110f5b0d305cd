"""Notifications by apprise: Slack, PagerDuty, mail, JSON and other services, each named by a URL.

Incidents of PagerDuty are opened and resolved by the key of the condition, unknown to apprise: apprise reads
the URL, and the event follows https://developer.pagerduty.com/docs/send-alert-event (Events API v2). An alert
of `domain.alerts.INFORMATION` pages nobody: PagerDuty gets none.
"""

from typing import TYPE_CHECKING

from clm_core.domain.alerts import HAPPENINGS, INFORMATION, Alert, RaisedAlert
from clm_core.domain.errors import DeliveryFailed, SettingsError

if TYPE_CHECKING:
    from apprise import Apprise, NotifyType

TIMEOUT_SECONDS = 10.0
PAGERDUTY = "pagerduty://"
PAGERDUTY_SUMMARY = 1024
"""Longest summary of an event, characters."""


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
    """Send an alert or a recovery to the receiver named by the URL, with a time limit of a few seconds.

    An alert that could not be recorded has no number.

    Raises:
        SettingsError: apprise does not understand the URL.
        DeliveryFailed: the receiver did not accept the alert.
    """
    import apprise

    if url.startswith(PAGERDUTY) and isinstance(alert, RaisedAlert):
        if alert.kind not in INFORMATION:
            _send_to_pagerduty(url, alert)
        return
    accepted = receiver(url).notify(
        title=_title(alert),
        body=f"{alert.message}\n{alert.at:%Y-%m-%d %H:%M:%S} UTC",
        notify_type=_notify_type(alert),
        body_format=apprise.NotifyFormat.TEXT,
    )
    if not accepted:
        raise DeliveryFailed(
            "the receiver is down, or the URL has a wrong host or token: the alert was not accepted"
        )


def _notify_type(alert: Alert) -> "NotifyType":
    from apprise import NotifyType

    if _is_recovery(alert):
        return NotifyType.SUCCESS
    if alert.kind in INFORMATION:
        return NotifyType.INFO
    return NotifyType.WARNING if alert.kind in HAPPENINGS else NotifyType.FAILURE


def _is_recovery(alert: Alert) -> bool:
    return isinstance(alert, RaisedAlert) and alert.recovers is not None


def _title(alert: Alert) -> str:
    number = f" #{alert.seq}" if isinstance(alert, RaisedAlert) else ""
    recovered = "recovered from " if _is_recovery(alert) else ""
    return f"CLM{number}: {recovered}{alert.kind.replace('_', ' ')}, {alert.subject}"


def _send_to_pagerduty(url: str, alert: RaisedAlert) -> None:
    """Trigger the incident of a condition or an occurrence, or resolve the incident of an ended condition."""
    import httpx
    from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP, NotifyPagerDuty

    from clm_core.platform.trusted_certificates import trusted_certificates

    [service] = receiver(url)
    assert isinstance(service, NotifyPagerDuty)
    event = {
        "routing_key": service.integration_key,
        "event_action": "resolve" if _is_recovery(alert) else "trigger",
        "dedup_key": alert.condition,
        "client": "CLM",
        "payload": {
            "summary": f"{_title(alert)}: {alert.message}"[:PAGERDUTY_SUMMARY],
            "source": service.source,
            "component": service.component,
            "severity": service.severity or ("warning" if alert.kind in HAPPENINGS else "critical"),
            "timestamp": alert.at.isoformat(),
            "custom_details": {"message": alert.message, "subject": alert.subject, "kind": alert.kind},
        },
    }
    try:
        answer = httpx.post(
            PAGERDUTY_API_LOOKUP[service.region_name],
            json=event,
            timeout=TIMEOUT_SECONDS,
            verify=trusted_certificates(),
        )
    except httpx.HTTPError as error:
        raise DeliveryFailed(f"PagerDuty does not answer ({type(error).__name__}: {error})") from error
    if not answer.is_success:
        raise DeliveryFailed(
            f"PagerDuty answered with status {answer.status_code}: check the integration key"
        )
