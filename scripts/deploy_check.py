"""Checks of `make deploy-check`: each part with the tools that it needs, its time, and a summary at the end.

    python scripts/deploy_check.py [--all] [--quick] [--only NAME ...]

A part whose tools are not installed is skipped, by name and with the package that has them; `--all` counts
that as a failure. `--quick` leaves out the parts that run for minutes and need servers beside `clm up`.
Every part runs, whatever becomes of the others; the exit status is 1 if one failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS: Mapping[str, str] = {
    "promtool": "apt-get install prometheus",
    "prometheus": "apt-get install prometheus",
    "amtool": "apt-get install prometheus-alertmanager",
    "prometheus-alertmanager": "apt-get install prometheus-alertmanager",
    "node": "apt-get install nodejs",
    "npm": "apt-get install npm",
}
"""Command that installs each tool on Debian; everything else comes from PyPI."""
OTHER_NAMES = {"prometheus-alertmanager": "alertmanager"}
"""Names of tools in the archives of their makers, by Debian's."""
LIMIT_SECONDS = 1_800.0
"""Longest time of a part."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class CheckPart:
    name: str
    subject: str
    commands: tuple[tuple[str, ...], ...]
    tools: tuple[str, ...] = ()
    long: bool = False
    """True for minutes of servers beside `clm up`."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartResult:
    part: CheckPart
    outcome: Outcome
    seconds: float
    detail: str = ""


PYTHON = sys.executable
RULES = "deployments/prometheus"
ON_KUBERNETES = (
    "tests/deployments/test_runs_on_kubernetes.py",
    "tests/deployments/test_trainings_on_kubernetes.py",
    "tests/clm_core/retraining/test_training_pods.py",
)
PARTS = (
    CheckPart(
        "chart",
        "Helm chart, kustomize and Dockerfile, with helm, kubectl and checkov of PyPI",
        (
            ("make", "--no-print-directory", ".venv-deploy/.ready"),
            ("scripts/check_kubernetes.sh", ".venv-deploy"),
        ),
    ),
    CheckPart(
        "runs-on-kubernetes",
        "the worker and its Jobs, and trainings in Jobs of their own",
        (
            ("make", "--no-print-directory", "kubernetes-extra"),
            (PYTHON, "-m", "pytest", "-n", "0", "-q", *ON_KUBERNETES),
        ),
        environment={"DEPLOY_CHECK": "1"},
    ),
    CheckPart(
        "storage",
        "an installation on two machines with a bucket, by SeaweedFS of PyPI",
        (
            ("make", "--no-print-directory", ".venv-deploy/.ready"),
            (PYTHON, "-m", "pytest", "-n", "0", "-q", "tests/deployments/test_storage_in_a_bucket.py"),
        ),
        environment={"DEPLOY_CHECK": "1"},
        long=True,
    ),
    CheckPart(
        "prometheus",
        "configuration and alert rules, each alert with its fault and without",
        (
            ("promtool", "check", "config", "--syntax-only", "deployments/docker/prometheus.yml"),
            ("promtool", "check", "rules", f"{RULES}/rules.yml"),
            ("promtool", "test", "rules", f"{RULES}/rules_test.yml"),
        ),
        ("promtool",),
    ),
    CheckPart(
        "alertmanager",
        "configuration of Slack and PagerDuty",
        (("amtool", "check-config", f"{RULES}/alertmanager.yml"),),
        ("amtool",),
    ),
    CheckPart(
        "dashboards",
        "JSON against the types of @grafana/schema",
        (("scripts/check_dashboards.sh",),),
        ("npm",),
    ),
    CheckPart(
        "openapi",
        "schemathesis against the REST API as every role, in all of its phases",
        ((PYTHON, "-m", "pytest", "-n", "0", "-q", "tests/clm_core/api/test_description.py"),),
        environment={"DEPLOY_CHECK": "1"},
        long=True,
    ),
    CheckPart(
        "clients",
        "a trader, webhook libraries, a generated client, MLflow's and Prefect's own, PostgreSQL over TCP",
        (
            ("make", "--no-print-directory", ".venv-clients/.ready"),
            (PYTHON, "scripts/client_drill.py", "--json", "dist/client_drill.json"),
        ),
        long=True,
    ),
    CheckPart(
        "clients-node",
        "webhook libraries and types of the REST API in Node, from the registry of npm",
        (
            (
                PYTHON,
                "scripts/client_drill.py",
                "--node",
                ".client-check",
                "--json",
                "dist/client_drill_node.json",
            ),
        ),
        ("node", "npm"),
        long=True,
    ),
    CheckPart(
        "restore-drill",
        "kill -9 under load, a backup restored elsewhere, every invariant",
        ((PYTHON, "scripts/restore_drill.py"),),
        long=True,
    ),
    CheckPart(
        "alert-drill",
        "every alert by a real fault, at Slack and PagerDuty, and every panel of the dashboards",
        ((PYTHON, "scripts/alert_drill.py", "--json", "dist/alert_drill.json"),),
        ("prometheus", "prometheus-alertmanager"),
        long=True,
    ),
)


def missing_tools(part: CheckPart) -> list[str]:
    """Tools of a part that are not installed, each with the command that installs it."""
    return [
        f"{tool} ({TOOLS[tool]})"
        for tool in part.tools
        if not any(map(shutil.which, (tool, OTHER_NAMES.get(tool, tool))))
    ]


def result_of(part: CheckPart) -> PartResult:
    """Run the commands of a part up to the first that fails."""
    if missing := missing_tools(part):
        detail = f"needs {', '.join(missing)}"
        print(f"\n== {part.name}: SKIPPED, {detail}", flush=True)
        return PartResult(part, Outcome.SKIPPED, 0.0, detail)
    print(f"\n== {part.name}: {part.subject}", flush=True)
    began = time.monotonic()
    for command in part.commands:
        if problem := _problem(command, part.environment):
            return PartResult(part, Outcome.FAILED, time.monotonic() - began, problem)
    return PartResult(part, Outcome.PASSED, time.monotonic() - began)


def _problem(command: tuple[str, ...], environment: Mapping[str, str]) -> str | None:
    words = " ".join(Path(word).name if word == PYTHON else word for word in command)
    try:
        status = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, check=False, timeout=LIMIT_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return f"{words} took longer than {LIMIT_SECONDS:.0f} s"
    return None if status == 0 else f"{words} ended with status {status}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="a part that is skipped counts as failed")
    parser.add_argument("--quick", action="store_true", help="without the drills")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    options = parser.parse_args()
    parts = [part for part in PARTS if options.only is None or part.name in options.only]
    results = [result_of(part) for part in parts if not (options.quick and part.long)]
    print("\n== summary")
    for result in results:
        print(f"{result.part.name:20} {result.outcome:8} {result.seconds:6.0f} s  {result.detail}")
    left_out = [part.name for part in parts if options.quick and part.long]
    if left_out:
        print(f"left out by --quick: {', '.join(left_out)}")
    bad = {Outcome.FAILED, Outcome.SKIPPED} if options.all else {Outcome.FAILED}
    print(f"{sum(result.seconds for result in results) / 60:.1f} minutes")
    return 1 if any(result.outcome in bad for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
