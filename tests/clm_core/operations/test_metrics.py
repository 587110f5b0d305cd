"""Metrics of an installation with versions, jobs, trials and alerts."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import promoting
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clm_core.domain.actors import Actor
from clm_core.domain.operation_settings import PolicySource
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.operations.metrics import exposition
from clm_core.services import Services

EVE = Actor(name="eve", role=Role.ADMIN)
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values_of(text: str) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, frozenset(labels.items())]


def test_counters_follow_the_ledger(
    services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    before = values_of(exposition(services).decode())
    version = make_version(model_id)
    after = values_of(exposition(services).decode())
    ended = {"status": "completed", "reason": "manual", "kind": "lightgbm"}
    for name, labels in (
        ("training_jobs_total", ended),
        ("clm_training_seconds_count", {"kind": "lightgbm"}),
        ("promotion_score_histogram_count", {}),
        ("clm_verdicts_total", {"decision": "pass"}),
        ("clm_trials_total", {"source": "retrain"}),
    ):
        key = name, frozenset(labels.items())
        assert after[key] == before.get(key, 0.0) + 1, name
    score = value(after, "clm_awaiting_score", model_id=model_id, version=version.version, status="candidate")
    assert value(after, "promotion_score_histogram_bucket", le="+Inf") == value(
        after, "promotion_score_histogram_count"
    )
    assert 0 <= score <= 100


def test_a_production_version_has_an_age_and_a_halt_is_seen(
    services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    version = make_version(model_id)
    about = {"model_id": model_id}
    assert ("clm_production_up", frozenset(about.items())) not in values_of(exposition(services).decode())
    promoting.promote(services, model_id, version.version, EVE, "it serves", services.clock())
    serving = values_of(exposition(services).decode())
    assert value(serving, "clm_production_up", **about) == 1.0
    age = (services.clock() - version.created_at) / timedelta(seconds=1)
    assert value(serving, "clm_production_age_seconds", **about) == pytest.approx(age, abs=60)
    assert value(serving, "models_promoted_total", kind="promotion", forced="false") >= 1.0
    services.promotions.halt(model_id, EVE, "to be seen", services.clock())
    halted = values_of(exposition(services).decode())
    assert value(halted, "clm_production_up", **about) == 0.0
    assert ("clm_production_age_seconds", frozenset(about.items())) not in halted


def test_a_greatest_age_is_that_of_the_policy_as_it_stands(
    services: Services, make_version: Callable[..., ModelVersion], model_id: str, tmp_path: Path
) -> None:
    version = make_version(model_id)
    promoting.promote(services, model_id, version.version, EVE, "it serves", services.clock())
    file = tmp_path / "policy.toml"
    settings = services.settings.model_copy(update={"policy": PolicySource(file=file)})
    changed = replace(services, settings=settings)

    def max_age() -> float | None:
        values = values_of(exposition(changed).decode())
        return values.get(("clm_production_max_age_seconds", frozenset({("model_id", model_id)})))

    assert max_age() is None
    for days in (30, 60):
        file.write_text(
            f'version = 1\npreset = "strict"\n[models.{model_id}.protection]\nmax_serving_days = {days}\n'
        )
        assert max_age() == days * 86_400
    file.write_text("version = ")
    assert max_age() is None


def test_counters_begin_at_zero_so_that_the_first_failure_is_an_increase(
    services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    make_version(model_id)
    values = values_of(exposition(services).decode())
    failed = {"status": "failed", "reason": "regime_change", "kind": "lightgbm"}
    for name, labels in (
        ("training_jobs_total", failed),
        ("clm_verdicts_total", {"decision": "inconclusive"}),
        ("models_promoted_total", {"kind": "adoption", "forced": "false"}),
        ("clm_production_changes_total", {"kind": "loss", "forced": "false"}),
        ("clm_trials_total", {"source": "evolution"}),
    ):
        # other tests of the process may have caused some of these
        assert value(values, name, **labels) >= 0.0, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_promtool_finds_fault_with_a_single_name(services: Services) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(services), capture_output=True, check=False
    )
    # the name was asked for as it is
    named = b"promotion_score_histogram metric name should not include type 'histogram'\n"
    assert checked.stdout + checked.stderr == named
