"""Rules for Prometheus: they name metrics that exist, and each alert fires for its fault alone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import deployments
from clm_core.operations.metrics import exposition
from clm_core.services import Services

RULES = Path(str(deployments.__file__)).parent / "prometheus" / "rules.yml"
METRIC = re.compile(r"\b(?:clm_|training_jobs|models_promoted|promotion_score)\w+")


def test_the_rules_name_metrics_that_exist(services: Services) -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    named = {name for group in groups for rule in group["rules"] for name in METRIC.findall(rule["expr"])}
    families = {each.name for each in text_string_to_metric_families(exposition(services).decode())}
    existing = {name + end for name in families for end in ("", "_total", "_bucket", "_count", "_sum")}
    assert named
    assert named <= existing


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_each_alert_fires_for_its_fault_alone() -> None:
    tested = RULES.with_name("rules_test.yml")
    subprocess.run(["promtool", "test", "rules", str(tested)], check=True, capture_output=True)
