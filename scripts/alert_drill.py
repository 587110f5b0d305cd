"""Alert drill: every alert of `deployments/prometheus` caused by a real fault on one machine, and resolved.

    python scripts/alert_drill.py [--json FILE] [--write] [--history HOME] [--keep FOLDER]

The drill makes a home with a history of weeks, starts `clm up`, OpenBao, Prometheus and Alertmanager on
127.0.0.1, with local receivers that answer like Slack and PagerDuty, and causes one fault after the other.
At the end it asks Prometheus every query of the dashboards. Some fifteen minutes on two cores; exit status 1
if an alert did not come within a minute, was not resolved, or a panel has no data.
"""

import argparse
import base64
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drill.alerts import Step, Steps, table
from drill.home import Client, Installation, make_history, sent_message, suspended
from drill.receivers import Received, Trader, receivers
from drill.servers import (
    DrillFailed,
    Monitor,
    SecretServer,
    alertmanager,
    free_port,
    missing_tools,
    prometheus,
    secret_server,
    wait_until,
)

from deployments.grafana.__main__ import empty_queries

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "metrics.md"
BEGIN = "<!-- begin: python scripts/alert_drill.py --write -->"
END = "<!-- end -->"
PATIENT_SECONDS = 300.0
OLD = "xgboost_plantedb_1h"
EXPIRING = "lightgbm_plantedc_1h"
TRADED = "lightgbm_btcusd_1h"
"""Models whose production version grows old, expires, and is promoted and halted."""
LASTING = "xgboost_planted_1h"
"""Model with weeks of production, a candidate in shadow and an allocation, which the drill leaves alone."""
ANYTHING = (
    "criteria = { min_sharpe_ratio = -1e9, min_win_rate = 0.0, min_profit_factor = 0.0, max_drawdown = 1.0, "
    "min_trades = 0 }"
)
SMALL = {
    "rounds": 2,
    "threshold": 0,
    "label": "volatility_scaled_return",
    "calibrate": False,
    "horizon": 12,
}
"""Parameters of a training of seconds."""
MESSAGES = ("momentum", "breakout", "mean_reversion")
"""Rule strategies, without a training, that messages request while the worker of the passes hangs."""
OLD_AFTER_SECONDS = 300.0
"""Time from the settings to the moment at which two production versions become too old."""
POLICY = """
version = 1
preset = "thresholds-only"
[models.{traded}]
{anything}
[models.{expiring}]
{anything}
protection = {{ mode = "off", max_serving_days = {expiring_days!r} }}
[models.{old}]
{anything}
protection = {{ mode = "off", max_serving_days = {old_days!r} }}
[models.{lasting}]
{anything}
protection = {{ mode = "off" }}
lifecycle = {{ refresh = "approval" }}
"""
SETTINGS = """
universe = []
[policy]
file = "policy.toml"
[training]
alert_after_seconds = 30
[vault]
address = "{vault}"
[webhooks.monitor]
secrets = ["vault://kv/clm/webhooks#monitor"]
[[events.subscribers]]
url = "http://127.0.0.1:{trader}/events"
secret = "vault://kv/clm/trader#key"
"""


@dataclass(frozen=True)
class Drill:
    """Everything that runs while faults are caused."""

    installation: Installation
    client: Client
    monitor: Monitor
    vault: SecretServer
    trader: Trader
    steps: Steps
    webhook_secret: str
    too_old_at: float
    """Moment at which `OLD` and `EXPIRING` become too old, seconds since 1970."""


def announce(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def cause_independent_faults(drill: Drill, listening: ExitStack) -> list[Step]:
    """Faults that do not hide each other: a failed and a slow training, a low score, a halt, and others.

    Returns:
        Steps that are repaired, and may not be resolved yet.
    """
    steps = drill.steps
    installation = drill.installation
    client = drill.client
    too_old = [
        steps.begin(
            "ClmProductionStale",
            "production not renewed for 0.9 of its greatest age",
            "a retrain, promoted",
            OLD,
            drill.too_old_at,
        ),
        *(
            steps.begin(
                name,
                "production not renewed up to its greatest age",
                "a retrain, promoted",
                EXPIRING,
                drill.too_old_at,
            )
            for name in ("ClmExpiredProductionBurn", "ClmExpiredProductionBurnSlow")
        ),
    ]
    job = client.train("lightgbm", "BTCUSD", 60, **SMALL)
    version = client.version_of(job)
    low = steps.begin(
        "ClmLowScoreAwaitsPromotion", "a candidate with a score below 50", "`clm promote`", TRADED
    )
    stuck = client.train("xgboost", "EURUSD", 200)
    wait_until(lambda: installation.trainings() != set(), "a training begins", PATIENT_SECONDS)
    [training] = installation.trainings()
    wait_until(lambda: client.job(stuck)["status"] == "in_progress", "the job begins", PATIENT_SECONDS)
    os.kill(training, signal.SIGSTOP)
    slow = steps.begin(
        "ClmTrainingSlow",
        "a training hangs (SIGSTOP)",
        "the training is killed",
        "xgboost",
    )
    listening.close()
    steps.wait_fired(low)
    installation.clm("promote", f"{TRADED}@{version}", "--reason", "drill")
    steps.undone(low)
    # the promotion is an event that the trader does not accept
    late = steps.begin(
        "ClmDeliveriesLate", "the trader's receiver is gone", "the receiver is back", "subscriber"
    )
    installation.pass_maintenance()
    halted = steps.begin("ClmHalted", "`clm halt`", "`clm rollback`", TRADED)
    installation.clm("halt", TRADED, "--reason", "drill")
    steps.wait_fired(slow, halted)
    failed = [
        steps.begin(
            name, "the process of a training is killed (SIGKILL)", "nothing, the alert ends by itself", about
        )
        for name, about in (("ClmTrainingFailed", "lightgbm"), ("ClmLateRetrainsBurnSlow", ""))
    ]
    for symbol in ("EURUSD", "PLANTEDB"):
        kill_a_training(drill, symbol)
    os.kill(training, signal.SIGKILL)
    steps.undone(slow)
    failed.append(
        steps.begin(
            "ClmLateRetrainsBurn",
            "three trainings are killed within a minute",
            "nothing, the alert ends by itself",
        )
    )
    installation.clm("rollback", TRADED, "--to", version, "--reason", "drill")
    steps.undone(halted)
    client.ended(stuck)
    steps.wait_fired(late, *failed)
    steps.undone(*failed)
    listening.enter_context(drill.trader.listening())
    steps.undone(late)
    steps.wait_fired(*too_old)
    renew(drill, too_old)
    steps.wait_resolved(late)
    return [low, slow, halted, *failed, *too_old]


def kill_a_training(drill: Drill, symbol: str) -> None:
    """Request a retrain, and kill the process of its training."""
    client = drill.client
    installation = drill.installation
    hung = installation.trainings()
    job = client.train("lightgbm", symbol, 200)
    wait_until(lambda: installation.trainings() - hung != set(), "a training begins", PATIENT_SECONDS)
    for process in installation.trainings() - hung:
        os.kill(process, signal.SIGKILL)
    if client.ended(job)["status"] != "failed":
        raise DrillFailed(f"the job {job} did not fail with its training")


def renew(drill: Drill, too_old: list[Step]) -> None:
    """Retrain and promote the two models whose production version is too old."""
    client = drill.client
    installation = drill.installation
    jobs = [client.train("lightgbm", "PLANTEDC", 840, **SMALL), client.train("xgboost", "PLANTEDB", 840)]
    for model_id, job in zip((EXPIRING, OLD), jobs, strict=True):
        installation.clm("promote", f"{model_id}@{client.version_of(job)}", "--reason", "drill")
        drill.steps.undone(*(step for step in too_old if step.about == model_id))


def cause_faults_of_maintenance(drill: Drill) -> list[Step]:
    """Faults that the maintenance finds: a changed audit, and secrets that cannot be read."""
    steps = drill.steps
    installation = drill.installation
    entry = 2
    actor = str(installation.figure(f"SELECT actor FROM audit_log WHERE seq = {entry}"))
    _write_actor(installation, entry, "mallory")
    broken = steps.begin("ClmAuditBroken", "a row of the audit is changed in SQL", "the row is put back")
    drill.vault.seal()
    sealed = steps.begin("ClmOpenAlert", "OpenBao is sealed", "OpenBao is unsealed", "maintenance_failing")
    installation.pass_maintenance()
    steps.wait_fired(broken, sealed)
    _write_actor(installation, entry, actor)
    drill.vault.unseal()
    installation.pass_maintenance()
    steps.undone(broken, sealed)
    return [broken, sealed]


def stop_the_passes(drill: Drill) -> None:
    """The loop of maintenance and the workers hang: no maintenance, and messages wait."""
    steps = drill.steps
    installation = drill.installation

    def age() -> float:
        [series] = drill.monitor.query(
            'time() - clm_pass_last_success_timestamp_seconds{pass="maintenance"}'
        ) or [{"value": [0, "0"]}]
        return float(series["value"][1])

    steps.wait_quiet("ClmPassStopped")
    # later the worker has begun the next pass already
    wait_until(lambda: 30 < age() < 34, "a maintenance succeeds", 200)
    with suspended(installation.pid("maintenance-loop")), suspended(installation.pid("worker")):
        stopped = steps.begin(
            "ClmPassStopped",
            "the loop of maintenance and the workers hang (SIGSTOP)",
            "both go on",
            "maintenance",
        )
        for family in MESSAGES:
            data = {"model_type": "other", "plugin": family, "symbol": "EURUSD", "requested_by": "drill"}
            message_id = f"drill-{secrets.token_hex(4)}"
            status = sent_message(installation.api, drill.webhook_secret, message_id, data)
            if status != 202:
                raise DrillFailed(f"a message was answered with {status}")
        steps.wait_fired(stopped)
    steps.undone(stopped)
    answered = len(MESSAGES)
    wait_until(lambda: installation.figure(_WEBHOOKS) == answered, "the messages are answered", 200)
    slow = [
        steps.begin(
            name,
            "the worker of the passes hangs (SIGSTOP): three messages wait",
            "the worker goes on",
        )
        for name in ("ClmSlowWebhooksBurn", "ClmSlowWebhooksBurnSlow")
    ]
    steps.wait_fired(*slow)
    steps.undone(*slow)
    steps.wait_resolved(stopped, *slow)


def stop_the_api(drill: Drill) -> None:
    with suspended(drill.installation.pid("api")):
        step = drill.steps.begin("ClmDown", "the API hangs (SIGSTOP)", "the API goes on")
        drill.steps.wait_fired(step)
    drill.steps.undone(step)
    drill.steps.wait_resolved(step)


def stop_the_database(drill: Drill) -> None:
    with suspended(*drill.installation.postgres()):
        step = drill.steps.begin("ClmDown", "PostgreSQL hangs (SIGSTOP)", "PostgreSQL goes on")
        drill.steps.wait_fired(step)
    drill.steps.undone(step)
    drill.steps.wait_resolved(step)


_WEBHOOKS = "SELECT count(*) FROM trigger_requests WHERE received_at IS NOT NULL AND reply = 'accepted'"


def _write_actor(installation: Installation, entry: int, actor: str) -> None:
    """Change who did something, as somebody with all rights on the database does."""
    trigger = "TRIGGER audit_log_append_only"
    installation.change_rows(
        f"ALTER TABLE audit_log DISABLE {trigger}",
        f"UPDATE audit_log SET actor = '{actor}' WHERE seq = {entry}",
        f"ALTER TABLE audit_log ENABLE ALWAYS {trigger}",
    )


def prepare(installation: Installation, vault: SecretServer, trader_port: int) -> tuple[str, float]:
    """Write settings, policy and secrets; the secret of the webhooks, and when production is too old."""
    key = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    vault.write("clm/webhooks", monitor=key)
    vault.write("clm/trader", key=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    home = installation.home
    halted, candidate = (
        max(each["version"] for each in installation.versions(model)) for model in (EXPIRING, OLD)
    )
    moment = time.time() + OLD_AFTER_SECONDS

    def days(model_id: str) -> float:
        trained = min(
            datetime.fromisoformat(each["created_at"]).timestamp() for each in installation.versions(model_id)
        )
        return (moment - trained) / 86_400

    (home / "policy.toml").write_text(
        POLICY.format(
            traded=TRADED,
            expiring=EXPIRING,
            old=OLD,
            lasting=LASTING,
            anything=ANYTHING,
            expiring_days=days(EXPIRING),
            old_days=days(OLD) / 0.9,
        )
    )
    (home / "clm.toml").write_text(SETTINGS.format(vault=vault.address, trader=trader_port))
    (home / "clm.toml").chmod(0o600)
    installation.clm("rollback", EXPIRING, "--to", halted, "--reason", "drill")
    installation.clm("promote", f"{OLD}@{candidate}", "--reason", "drill")
    return key, moment


def run(folder: Path, history: Path | None) -> tuple[Steps, list[str], Received]:
    home = folder / "home"
    announce("a home with a history of weeks (scripts/shown_home.py)")
    make_history(home, history)
    with ExitStack() as running, ExitStack() as listening:
        vault = running.enter_context(secret_server(folder / "openbao"))
        received = running.enter_context(receivers())
        port = free_port()
        trader = Trader(port)
        listening.enter_context(trader.listening())
        installation = Installation(home, VAULT_TOKEN=vault.token())
        key, moment = prepare(Installation(home, VAULT_TOKEN=vault.token()), vault, port)
        announce("clm up")
        running.enter_context(installation.up())
        client = Client(installation, installation.token("operator"))
        scraper = installation.token("scraper")
        announce("Alertmanager and Prometheus")
        alerts = running.enter_context(alertmanager(folder / "alertmanager", received))
        monitor = running.enter_context(prometheus(folder / "prometheus", installation.api, scraper, alerts))
        wait_until(lambda: monitor.query("up == 1") != [], "Prometheus scrapes the API", 60)
        steps = Steps(received, announce)
        drill = Drill(installation, client, monitor, vault, trader, steps, key, moment)
        announce("the retrains that the history has left are ended")
        wait_until(lambda: _is_idle(installation), "all jobs end", PATIENT_SECONDS)
        # first: faults of deliveries and secrets let passes fail, too
        stop_the_passes(drill)
        wait_until(lambda: _is_idle(installation), "all jobs end", PATIENT_SECONDS)
        repaired = cause_independent_faults(drill, listening)
        repaired += cause_faults_of_maintenance(drill)
        steps.wait_resolved(*repaired)
        stop_the_api(drill)
        stop_the_database(drill)
        announce("every query of the dashboards, with the product's rules")
        monitor.take_product_rules()
        return steps, _panels(drill), received


def _is_idle(installation: Installation) -> bool:
    query = "SELECT count(*) FROM training_jobs WHERE status IN ('pending', 'in_progress')"
    return bool(installation.figure(query) == 0)


def _panels(drill: Drill) -> list[str]:
    """Queries of panels without data, one minute after the product's rules are loaded."""
    try:
        wait_until(lambda: not empty_queries(drill.monitor.url), "every panel has data", 60)
    except DrillFailed:
        return empty_queries(drill.monitor.url)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("--history", type=Path, metavar="HOME", help="copy this home in place of a new one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all files in a new folder")
    options = parser.parse_args()
    if missing := missing_tools():
        print(f"Not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clm-drill-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        try:
            steps, empty, received = run(folder, options.history)
        except DrillFailed as error:
            print(f"The drill ended early: {error}", file=sys.stderr)
            return 1
    status = report(steps, empty, received, time.monotonic() - began, options.json)
    if options.write and status == 0:
        write_table(PAGE, table(step.row() for step in steps.steps))
    return status


def write_table(page: Path, lines: str) -> None:
    """Replace the table of a page between its marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{lines}\n\n{end}{after}", encoding="utf-8")


def report(steps: Steps, empty: list[str], received: Received, seconds: float, file: Path | None) -> int:
    """Print the table and the problems; 1 if there are any."""
    rows = [step.row() for step in steps.steps]
    problems = [step.problem for step in steps.steps if step.problem]
    problems += [f"{alert} has no fault in this drill" for alert in steps.missing()]
    problems += [f"PagerDuty got the warning {alert}" for alert in steps.misdirected()]
    problems += [f"a receiver refused {each}" for each in received.malformed]
    problems += [f"no data: {each}" for each in empty]
    print(table(rows))
    for other in steps.others():
        print(f"Came beside the drill: {other}")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"{len(rows)} faults, {len(problems)} problems, {seconds / 60:.1f} minutes")
    if file is not None:
        file.parent.mkdir(exist_ok=True)
        result: dict[str, Any] = {"alerts": rows, "problems": problems, "others": steps.others()}
        file.write_text(json.dumps(result | {"seconds": round(seconds)}, indent=2) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
