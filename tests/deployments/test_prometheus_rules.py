"""Rules for Prometheus and dashboards for Grafana: they name metrics that exist, and each alert fires for its
fault alone."""

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
from deployments.grafana import DASHBOARDS, FOLDER, WIDTH, rendered, text_of

RULES = Path(str(deployments.__file__)).parent / "prometheus" / "rules.yml"
METRIC = re.compile(r"\b(?:clm_|training_jobs|models_promoted|promotion_score)\w+")
RECORDED = re.compile(r"\bclm:[\w:]+")


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_and_dashboards_name_metrics_that_exist(services: Services) -> None:
    families = {each.name for each in text_string_to_metric_families(exposition(services).decode())}
    existing = {name + end for name in families for end in ("", "_total", "_bucket", "_count", "_sum")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
    expressions = [rule["expr"] for rule in rules()]
    expressions += [query.expression for panel in panels for query in panel.queries]
    named = {name for each in expressions for name in METRIC.findall(each)}
    assert named
    assert named <= existing
    assert {name for each in expressions for name in RECORDED.findall(each)} == recorded


def test_the_dashboard_files_are_those_defined() -> None:
    written = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert written == {each.uid: text_of(each) for each in DASHBOARDS}, "run `python -m deployments.grafana`"


def test_no_panel_covers_another() -> None:
    for dashboard in DASHBOARDS:
        taken = set[tuple[int, int]]()
        for panel in rendered(dashboard)["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= WIDTH
            cells = {
                (place["x"] + column, place["y"] + row)
                for column in range(place["w"])
                for row in range(place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_each_alert_fires_for_its_fault_alone() -> None:
    tested = RULES.with_name("rules_test.yml")
    subprocess.run(["promtool", "test", "rules", str(tested)], check=True, capture_output=True)
