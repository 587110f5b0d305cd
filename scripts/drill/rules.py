"""The product's alert rules with shorter waits, so that a drill sees each alert fire and resolve in minutes.

A rule that fires at once stays as it is. Every change is one entry of `SHORTER`, and each has to occur in
the rule: a rule that changes in the product stops the drill.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

RULES = Path(__file__).parents[2] / "deployments" / "prometheus" / "rules.yml"


class Shorter(NamedTuple):
    product: str
    """Text of the rule's expression."""
    drill: str
    meaning: str


SHORTER: Mapping[str, tuple[Shorter, ...]] = {
    "ClmTrainingFailed": (Shorter("< 900", "< 60", "lasts 60 s instead of 15 min"),),
    "ClmTrainingSlow": (Shorter("> 7200", "> 30", "after 30 s instead of 2 h"),),
    "ClmPassStopped": (
        Shorter("3 * clm_pass_interval_seconds", "1 * clm_pass_interval_seconds", ""),
        Shorter("+ 300", "+ 10", "10 s after the interval instead of 300"),
    ),
    "ClmDeliveriesLate": (Shorter("> 600", "> 20", "after 20 s instead of 10 min"),),
}
"""Changes by alert."""
WINDOWS = {"5m": "15s", "30m": "30s", "1h": "60s", "6h": "60s", "3d": "60s"}
"""Windows of the recorded service levels."""
OF_WINDOWS = "windows of 15 to 60 s instead of 5 min to 3 d"


def alert_rules() -> Iterator[dict[str, Any]]:
    """Alerts of the product, in the order of the file."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return (rule for group in groups for rule in group["rules"] if "alert" in rule)


def shortened() -> str:
    """The product's file of rules with the waits of a drill.

    Raises:
        ValueError: a rule of the product no longer has a text of `SHORTER`.
    """
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in document["groups"]:
        for rule in group["rules"]:
            for change in SHORTER.get(rule.get("alert", ""), ()):
                rule["expr"] = _replaced(rule["alert"], rule["expr"], change)
            if "record" in rule:
                for product, drill in WINDOWS.items():
                    rule["expr"] = rule["expr"].replace(f"[{product}]", f"[{drill}]")
    text: str = yaml.safe_dump(document, sort_keys=False, width=1000)
    return text


def wait_in_words(alert: str) -> str:
    """Difference between the rule of the product and that of the drill; empty for none."""
    if "Burn" in alert:
        return OF_WINDOWS
    return "; ".join(change.meaning for change in SHORTER.get(alert, ()) if change.meaning)


def _replaced(alert: str, expression: str, change: Shorter) -> str:
    if change.product not in expression:
        raise ValueError(f"{alert} of {RULES} has no {change.product!r} any more: correct SHORTER.")
    return expression.replace(change.product, change.drill)
