"""One record for each alert: its fault, and when each receiver got it and its end."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drill.receivers import Message, Place, Received
from drill.rules import alert_rules, wait_in_words
from drill.servers import DrillFailed, wait_until

FIRED_WITHIN_SECONDS = 60.0
"""Longest time from a fault to the last of its receivers."""
GROUP_GONE_SECONDS = 65.0
"""Time from the end of an alert until Alertmanager has removed its group."""
PATIENT_SECONDS = 180.0
"""Time after which a missing notification fails the drill."""


@dataclass
class Step:
    """A fault that causes an alert, and its times, seconds since 1970."""

    alert: str
    fault: str
    undo: str
    about: str
    """Words that the notification holds: a model, a kind, a pass."""
    places: tuple[Place, ...]
    """Receivers by the severity of the alert."""
    began: float
    fired: dict[Place, float] = field(default_factory=dict)
    undone: float | None = None
    resolved: dict[Place, float] = field(default_factory=dict)

    @property
    def fired_seconds(self) -> float | None:
        """Time from the fault to the last receiver; None before."""
        return max(self.fired.values()) - self.began if set(self.fired) == set(self.places) else None

    @property
    def resolved_seconds(self) -> float | None:
        """Time from the repair to the last receiver; None before."""
        if self.undone is None or set(self.resolved) != set(self.places):
            return None
        return max(self.resolved.values()) - self.undone

    @property
    def problem(self) -> str | None:
        """Reason why the alert fails the drill, if any."""
        if self.fired_seconds is None:
            return f"{self.alert} did not come"
        if self.fired_seconds > FIRED_WITHIN_SECONDS:
            return f"{self.alert} came after {self.fired_seconds:.0f} s"
        return None if self.resolved_seconds is not None else f"{self.alert} was not resolved"

    def row(self) -> dict[str, Any]:
        return {
            "alert": self.alert,
            "fault": self.fault,
            "receivers": [str(place) for place in self.places],
            "fired_seconds": _rounded(self.fired_seconds),
            "undo": self.undo,
            "resolved_seconds": _rounded(self.resolved_seconds),
            "rule_in_the_drill": wait_in_words(self.alert),
        }


class Steps:
    """All steps of a drill, and the notifications that have come."""

    def __init__(self, received: Received, announce: Callable[[str], None]) -> None:
        self._received = received
        self._announce = announce
        self._critical = {rule["alert"] for rule in alert_rules() if rule["labels"]["severity"] == "critical"}
        self.steps: list[Step] = []

    def begin(self, alert: str, fault: str, undo: str, about: str = "", began: float | None = None) -> Step:
        """Note a fault that begins now, or at a given time."""
        places = (Place.SLACK, Place.PAGERDUTY) if alert in self._critical else (Place.SLACK,)
        step = Step(alert, fault, undo, about, places, time.time() if began is None else began)
        self.steps.append(step)
        self._announce(f"fault: {fault}, for {alert}")
        return step

    def wait_fired(self, *steps: Step) -> None:
        self._wait(steps, "came", lambda step: step.fired_seconds)

    def undone(self, *steps: Step) -> None:
        """Note that the faults have ended now."""
        for step in steps:
            step.undone = time.time()
            self._announce(f"repaired: {step.undo}, for {step.alert}")

    def wait_resolved(self, *steps: Step) -> None:
        self._wait(steps, "was resolved", lambda step: step.resolved_seconds)

    def wait_quiet(self, alert: str) -> None:
        """Wait until an alert that has come beside the drill is over, and its group gone from Alertmanager.

        A group that still exists would hold a new notification back until its next round.
        """

        def is_quiet() -> bool:
            messages = [each for each in self._received.messages if each.alert == alert]
            return not messages or (
                not messages[-1].firing and time.time() - messages[-1].at > GROUP_GONE_SECONDS
            )

        wait_until(is_quiet, f"{alert} is quiet", PATIENT_SECONDS)

    def missing(self) -> list[str]:
        """Alerts of the product without a step."""
        had = {step.alert for step in self.steps}
        return [rule["alert"] for rule in alert_rules() if rule["alert"] not in had]

    def others(self) -> list[str]:
        """Alerts that came although no step of theirs had begun, or is about them."""
        return sorted(
            {
                f"{message.alert} ({message.text.strip().splitlines()[0]})"
                for message in self._received.messages
                if message.firing and not any(_is_about(step, message) for step in self.steps)
            }
        )

    def misdirected(self) -> list[str]:
        """Alerts of severity warning that PagerDuty got."""
        return sorted(
            {
                message.alert
                for message in self._received.messages
                if message.place is Place.PAGERDUTY and message.alert not in self._critical
            }
        )

    def _wait(self, steps: Sequence[Step], verb: str, seconds_of: Callable[[Step], float | None]) -> None:
        waiting = list(steps)

        def done() -> bool:
            self._assign()
            for step in [each for each in waiting if seconds_of(each) is not None]:
                waiting.remove(step)
                self._announce(f"{step.alert} {verb} after {seconds_of(step):.0f} s ({step.about or 'all'})")
            return not waiting

        try:
            wait_until(done, f"every alert {verb}", PATIENT_SECONDS)
        except DrillFailed:
            names = ", ".join(step.alert for step in waiting)
            self._announce(f"NOT WITHIN {PATIENT_SECONDS:.0f} s: {names} {verb}")

    def _assign(self) -> None:
        """Match the notifications with the steps, first come first."""
        for step in self.steps:
            for message in _of(step, list(self._received.messages)):
                if message.firing and message.at >= step.began - 1:
                    step.fired.setdefault(message.place, message.at)
                elif not message.firing and step.undone is not None and message.at >= step.undone - 1:
                    step.resolved.setdefault(message.place, message.at)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Table in Markdown."""
    lines = [
        "| alert | fault | came after | repaired by | resolved after | the drill's rule |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        places = "Slack and PagerDuty" if len(row["receivers"]) > 1 else "Slack"
        came = "never" if row["fired_seconds"] is None else f"{row['fired_seconds']} s, {places}"
        ended = "never" if row["resolved_seconds"] is None else f"{row['resolved_seconds']} s"
        rule = row["rule_in_the_drill"] or "the product's"
        lines.append(f"| `{row['alert']}` | {row['fault']} | {came} | {row['undo']} | {ended} | {rule} |")
    return "\n".join(lines)


def _of(step: Step, messages: Iterable[Message]) -> list[Message]:
    return [each for each in messages if each.alert == step.alert and step.about in each.text]


def _is_about(step: Step, message: Message) -> bool:
    return bool(_of(step, [message])) and message.at >= step.began - 1


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
