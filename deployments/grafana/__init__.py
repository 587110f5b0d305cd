"""Dashboards for Grafana: defined here, written as JSON files that Grafana provisions.

python -m deployments.grafana
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SCHEMA_VERSION = 39
"""Version of Grafana's model of a dashboard: that of Grafana 11."""
WIDTH = 24
"""Columns of Grafana's grid."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str = ""


@dataclass(frozen=True)
class DashboardPanel:
    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    """timeseries, stat, gauge, table, heatmap or bargauge."""
    description: str = ""
    thresholds: tuple[tuple[float, str], ...] = ()
    """Values from which on a colour holds."""
    width: int = 12


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    panels: tuple[DashboardPanel, ...]


def panel(title: str, *queries: tuple[str, str] | str, **options: Any) -> DashboardPanel:
    """Panel of queries, each with a legend or alone."""
    parsed = tuple(Query(each) if isinstance(each, str) else Query(*each) for each in queries)
    return DashboardPanel(title, parsed, **options)


def burn_rates(window: str, name: str, description: str = "") -> DashboardPanel:
    """Panel of the rates at which the error budgets burn, over a window of the recorded rules."""
    return panel(
        f"Burn rate of the error budgets, {name}",
        (f"clm:late_retrains:ratio{window} / 0.01", "late retrains"),
        (f"clm:slow_webhooks:ratio{window} / 0.05", "slow messages"),
        (f"max(clm:expired_production:ratio{window}) / 0.001", "expired production"),
        description=description,
    )


BAD_ABOVE_0 = ((0.0, "green"), (1.0, "red"))
GOOD_AT_1 = ((0.0, "red"), (1.0, "green"))
STATUS = Dashboard(
    "clm-status",
    "CLM: status",
    (
        panel("API", ("min(up{job='clm'})", ""), kind="stat", thresholds=GOOD_AT_1, width=6),
        panel(
            "Models that serve", "sum(clm_production_up)", kind="stat", thresholds=((0.0, "green"),), width=6
        ),
        panel("Halted", "sum(1 - clm_production_up)", kind="stat", thresholds=BAD_ABOVE_0, width=6),
        panel(
            "Open alerts", "sum(clm_open_alerts) or vector(0)", kind="stat", thresholds=BAD_ABOVE_0, width=6
        ),
        panel(
            "Time since the last success of each pass",
            ("time() - clm_pass_last_success_timestamp_seconds", "{{pass}}"),
            unit="s",
        ),
        panel("Open alerts by kind", ("clm_open_alerts", "{{kind}}")),
        panel("Deliveries waiting", ("clm_waiting_deliveries", "{{receiver}} {{stream}}")),
        panel("Receivers failing for", ("clm_delivery_failing_seconds", "{{receiver}} {{stream}}"), unit="s"),
        panel("Versions by status", ("clm_versions", "{{status}}")),
        panel("Size of the ledger", "clm_ledger_bytes", unit="bytes"),
    ),
)
QUEUE = Dashboard(
    "clm-queue",
    "CLM: training queue",
    (
        panel("Waiting", "sum(clm_unfinished_jobs{status='pending'}) or vector(0)", kind="stat", width=6),
        panel(
            "In progress", "sum(clm_unfinished_jobs{status='in_progress'}) or vector(0)", kind="stat", width=6
        ),
        panel(
            "Failed in 24 hours",
            "sum(increase(training_jobs_total{status='failed'}[24h])) or vector(0)",
            kind="stat",
            thresholds=BAD_ABOVE_0,
            width=6,
        ),
        panel(
            "Longest in progress",
            "max(clm_longest_running_job_seconds) or vector(0)",
            kind="stat",
            unit="s",
            thresholds=((0.0, "green"), (7200.0, "red")),
            width=6,
        ),
        panel(
            "Jobs ended an hour",
            ("sum by (status) (increase(training_jobs_total[1h]))", "{{status}}"),
        ),
        panel(
            "Jobs by reason of the trigger in 24 hours",
            ("sum by (reason) (increase(training_jobs_total[24h]))", "{{reason}}"),
            kind="bargauge",
        ),
        panel(
            "Training time, median and 95 %",
            ("histogram_quantile(0.5, sum by (kind, le) (clm_training_seconds_bucket))", "{{kind}} median"),
            ("histogram_quantile(0.95, sum by (kind, le) (clm_training_seconds_bucket))", "{{kind}} 95 %"),
            unit="s",
        ),
        panel(
            "From a message to its job, 95 %",
            "histogram_quantile(0.95, sum by (le) (clm_webhook_to_job_seconds_bucket))",
            unit="s",
        ),
        panel("Trials an hour", ("sum by (source) (increase(clm_trials_total[1h]))", "{{source}}")),
    ),
)
PROMOTION = Dashboard(
    "clm-promotion",
    "CLM: promotion rate",
    (
        panel(
            "Promoted by the gate in 7 days",
            "sum(increase(models_promoted_total{forced='false'}[7d])) or vector(0)",
            kind="stat",
            width=6,
        ),
        panel(
            "Forced in 7 days",
            "sum(increase(models_promoted_total{forced='true'}[7d])) or vector(0)",
            kind="stat",
            thresholds=BAD_ABOVE_0,
            width=6,
        ),
        panel(
            "Rolled back or halted in 7 days",
            "sum(increase(clm_production_changes_total{kind=~'rollback|halt|loss'}[7d])) or vector(0)",
            kind="stat",
            width=6,
        ),
        panel(
            "Passed, of all verdicts",
            "(sum(clm_verdicts_total{decision='pass'}) or vector(0)) / sum(clm_verdicts_total)",
            kind="stat",
            unit="percentunit",
            width=6,
        ),
        panel("Verdicts a day", ("sum by (decision) (increase(clm_verdicts_total[24h]))", "{{decision}}")),
        panel(
            "Changes of production a day",
            ("sum by (kind) (increase(clm_production_changes_total[24h]))", "{{kind}}"),
        ),
        panel(
            "Promotion scores of all evaluations",
            ("sum by (le) (promotion_score_histogram_bucket)", "{{le}}"),
            kind="bargauge",
        ),
        panel("Scores that await a decision", ("clm_awaiting_score", "{{model_id}} {{version}} {{status}}")),
        panel("Shadow testing", ("clm_shadow_seconds", "{{model_id}} {{version}}"), unit="s"),
        panel("Trades in shadow", ("clm_shadow_trades", "{{model_id}} {{version}}")),
    ),
)
MODELS = Dashboard(
    "clm-models",
    "CLM: models",
    (
        panel(
            "Equity since the promotion",
            ("clm_production_equity_ratio", "{{model_id}}"),
            description="After costs; 1 at the promotion.",
        ),
        panel("Drawdown", ("clm_production_drawdown_ratio", "{{model_id}}"), unit="percentunit"),
        panel("Age of the training", ("clm_production_age_seconds", "{{model_id}}"), unit="s"),
        panel("Time in production", ("clm_production_served_seconds", "{{model_id}}"), unit="s"),
        panel(
            "Drift",
            ("clm_drift_score", "{{model_id}}"),
            description="1: as far from the training as its own furthest stretch.",
            thresholds=((0.0, "green"), (1.0, "red")),
        ),
        panel(
            "Capital by version in running allocations",
            ("clm_allocation_weight_ratio", "{{model_id}} {{version}}"),
            unit="percentunit",
        ),
        panel(
            "Models that serve",
            ("clm_production_up", "{{model_id}}"),
            kind="bargauge",
            thresholds=GOOD_AT_1,
            width=24,
        ),
    ),
)
SLO = Dashboard(
    "clm-slo",
    "CLM: service levels",
    (
        panel(
            "Retrains with a verdict within two hours (objective 99 %)",
            "1 - clm:late_retrains:ratio3d",
            kind="gauge",
            unit="percentunit",
            thresholds=((0.0, "red"), (0.99, "green")),
            width=8,
        ),
        panel(
            "Messages with a job within five seconds (objective 95 %)",
            "1 - clm:slow_webhooks:ratio3d",
            kind="gauge",
            unit="percentunit",
            thresholds=((0.0, "red"), (0.95, "green")),
            width=8,
        ),
        panel(
            "Production not older than it may be (objective 99.9 %)",
            "1 - avg(clm:expired_production:ratio3d)",
            kind="gauge",
            unit="percentunit",
            thresholds=((0.0, "red"), (0.999, "green")),
            width=8,
        ),
        burn_rates("1h", "one hour", "1 uses up the budget in exactly 30 days; 14.4 in two days."),
        burn_rates("6h", "six hours"),
    ),
)
DASHBOARDS = (STATUS, QUEUE, PROMOTION, MODELS, SLO)


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana's JSON."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["clm"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
            ]
        },
        "panels": _placed(dashboard.panels),
    }


def _placed(panels: Sequence[DashboardPanel]) -> list[dict[str, Any]]:
    """Panels from left to right, row by row."""
    placed = []
    x = y = height = 0
    for number, each in enumerate(panels, start=1):
        if x + each.width > WIDTH:
            x = 0
            y = y + height
        height = 4 if each.kind == "stat" else 8
        placed.append(_panel(each, number, {"x": x, "y": y, "w": each.width, "h": height}))
        x += each.width
    return placed


def _panel(each: DashboardPanel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": each.unit}
    if each.thresholds:
        (_, first), *others = each.thresholds
        steps = [{"value": None, "color": first}, *({"value": v, "color": c} for v, c in others)]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
    return {
        "id": number,
        "type": each.kind,
        "title": each.title,
        "description": each.description,
        "datasource": DATASOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or each.title,
            }
            for place, query in enumerate(each.queries)
        ],
    }


def text_of(dashboard: Dashboard) -> str:
    return json.dumps(rendered(dashboard), indent=2) + "\n"
