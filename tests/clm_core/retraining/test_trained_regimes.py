"""Versions trained towards a regime, from the request to the run's page and the reproduction."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from records import a_job, a_version
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.measures import percent, ratio
from clm_core.domain.regime_pools import RegimePools
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import MarketRegime, ModelStatus, ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.lifecycle.explanations import stored_explanation
from clm_core.market.bars import Bars
from clm_core.market.regimes import regimes
from clm_core.retraining import jobs, pages, pools, steps, training
from clm_core.retraining.regime_pools import regime_pools
from clm_core.retraining.reproduce import reproduce
from clm_core.services import Services


def a_request(**changes: object) -> RetrainRequest:
    params = {"rounds": 3, "regime": "turbulent"}
    return RetrainRequest.model_validate(
        {
            "model_type": ModelType.LIGHTGBM,
            "symbol": "BTCUSD",
            "dataset_span_days": 365,
            "training_params": params,
            "requested_by": "tests",
        }
        | changes
    )


@pytest.fixture(scope="module")
def retrained(services: Services) -> tuple[TrainingJob, ModelVersion, str]:
    """Job and version, and the run's page."""
    job = jobs.open_job(services, a_request())
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        evaluation = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        verdict = steps.judge(services, lease, version, evaluation)
        files = steps.report(services, job, version, bars, trained, evaluation, verdict)
    return job, version, pages.summary_page(services.page_addresses, version, verdict, files)


def test_the_bars_of_a_training_have_the_regimes_of_the_whole_series(services: Services) -> None:
    job = jobs.new_job(services, a_request())
    bars = pools.bars_of(services, job)
    assert isinstance(bars, Bars)
    whole = services.market.bars("BTCUSD", "1h", closed_by=services.clock())
    assert bars.regime is not None
    assert bars.regime.tolist() == regimes(whole).labels[-len(bars) :].tolist()
    plain = pools.bars_of(services, jobs.new_job(services, a_request(training_params={})))
    assert isinstance(plain, Bars)
    assert plain.regime is None


def test_a_subprocess_is_given_the_regimes(services: Services, tmp_path: Path) -> None:
    job = jobs.new_job(services, a_request())
    bars = pools.bars_of(services, job)
    plan = WalkForwardPlan(folds=2)
    spec = steps.training_spec(job, plan, steps.training_costs(services, bars))
    training.write_input(spec, bars, tmp_path)
    _, read = training.read_input(tmp_path)
    assert read.content_hash == bars.content_hash


def test_a_version_says_towards_which_regime_it_was_trained(
    services: Services, retrained: tuple[TrainingJob, ModelVersion, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, version, page = retrained
    assert version.regime == version.params["regime"] == "turbulent"
    client = services.registry.client
    assert client.get_model_version(version.model_id, str(version.mlflow_version)).tags["clm.regime"] == (
        "turbulent"
    )
    assert client.get_run(version.mlflow_run_id).data.tags["clm.regime"] == "turbulent"
    rows = version.train_metrics["regime_rows"] / version.train_metrics["fit_rows"]
    weight = version.train_metrics["regime_share_of_weight"]
    sentence = f"the regime turbulent: {rows:.1%} of the rows fitted, with {weight:.1%} of the weight"
    assert f"Trained towards {sentence}." in page
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    run = partial(CliRunner().invoke, app, env={"COLUMNS": "200"})
    listed = run(["models", "--model-id", version.model_id]).output
    assert "towards" in listed
    assert "turbulent" in listed
    assert sentence in run(["show", f"{version.model_id}@{version.version}"]).output


def test_a_judged_version_has_the_validation_metrics_of_its_out_of_sample_bars(
    services: Services, retrained: tuple[TrainingJob, ModelVersion, str]
) -> None:
    _, version, _ = retrained
    stored = services.ledger.version(version.model_id, version.version)
    metrics = stored.validation_metrics
    result, _ = services.ledger.evaluation(version.model_id, version.version)
    assert metrics["sharpe_ratio"] == result.sharpe_ratio
    assert {"brier_skill", "auc", "calibration_error", "return_skill", "coverage_90"} <= metrics.keys()
    assert "pinball_loss" not in metrics
    assert metrics["coverage_90"] == pytest.approx(0.9, abs=0.03)
    logged = services.registry.client.get_run(version.mlflow_run_id).data.metrics
    assert logged["brier_skill"] == metrics["brier_skill"]
    [calibration] = [
        each for each in stored_explanation(services, stored).sections if each.name == "calibration"
    ]
    assert calibration.values["brier"]["skill"]["value"] == metrics["brier_skill"]


def test_the_page_of_the_run_has_the_results_by_regime_of_the_tear_sheet(
    services: Services, retrained: tuple[TrainingJob, ModelVersion, str]
) -> None:
    _, version, page = retrained
    lines = page.splitlines()
    begun = lines.index(next(line for line in lines if line.startswith("| regime |")))
    assert lines[begun] == (
        "| regime | share of the bars | Sharpe ratio | max drawdown | win rate | net return | exposure | "
        "trades |"
    )
    calm, turbulent = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines[begun + 2 : begun + 4]
    )
    assert (calm[0], turbulent[0]) == ("calm", "turbulent")
    sheet = (services.reports / version.model_id / f"{version.version}.html").read_text()
    for cell in (*calm[1:-1], *turbulent[1:-1]):
        assert f">{cell}</td>" in sheet


def test_a_version_trained_towards_a_regime_is_reproduced(
    services: Services, retrained: tuple[TrainingJob, ModelVersion, str]
) -> None:
    result = reproduce(services, retrained[1])
    assert result.reproduced
    assert result.differences == ()


def test_a_training_towards_a_regime_needs_a_twentieth_of_the_newest_bars_and_of_half_of_the_folds(
    services: Services,
) -> None:
    whole = services.market.bars("BTCUSD", "1h", closed_by=services.clock())[-4_000:]
    plan = WalkForwardPlan(folds=4, embargo_bars=0, train_bars=500, first_train_fraction=0.5)

    def with_turbulent(*parts: slice) -> Bars:
        labels = np.zeros(len(whole), dtype=np.int8)
        for rows in parts:
            labels[rows] = 1
        return replace(whole, regime=labels)

    # folds train on the 500 bars before rows 2000, 2500, 3000 and 3500, the registered model on all
    enough = with_turbulent(slice(2_000, 2_400), slice(2_600, 3_000))
    training.require_regime(enough, "turbulent", plan)
    training.require_regime(enough, "calm", plan)
    few = with_turbulent(slice(2_000, 2_199))
    with pytest.raises(
        NotEnoughBars, match=r"199 of the 4,000 newest training bars are turbulent.* needs 5%"
    ):
        training.require_regime(few, "turbulent", plan)
    once = with_turbulent(slice(2_000, 2_400))
    with pytest.raises(NotEnoughBars, match=r"1 of the 4 folds have 5% turbulent bars"):
        training.require_regime(once, "turbulent", plan)


def test_the_pools_of_the_regimes_hold_the_results_of_the_tear_sheet(
    services: Services, retrained: tuple[TrainingJob, ModelVersion, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, version, page = retrained
    report = regime_pools(services, "btc/usd", "1h", best=20)
    assert (report.symbol, report.current, report.since) == (
        "BTCUSD",
        "turbulent",
        datetime(2019, 7, 11, tzinfo=UTC),
    )
    assert [pool.regime for pool in report.pools] == list(MarketRegime)
    for pool in report.pools:
        ratios = [each.sharpe_ratio for each in pool.kept]
        assert ratios == sorted(ratios, reverse=True)
        [own] = [each for each in pool.kept if each.version == version.version]
        row = f"| {pool.regime} | "
        cells = next(line for line in page.splitlines() if line.startswith(row)).split(" | ")
        assert cells[2] == f"{ratio(own.sharpe_ratio)} ± {ratio(own.sharpe_error)}"
        assert (cells[3], cells[5]) == (percent(own.max_drawdown), percent(own.total_return))
        best = regime_pools(services, "BTCUSD", "1h", best=1).pools[report.pools.index(pool)]
        assert (best.kept, best.ranked) == (pool.kept[:1], len(pool.kept))
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    run = partial(CliRunner().invoke, app, env={"COLUMNS": "200"})
    shown = run(["regimes", "BTCUSD"]).output
    assert "BTCUSD 1h: turbulent since 2019-07-11." in shown
    assert (
        RegimePools.model_validate_json(run(["regimes", "BTCUSD", "--best", "20", "--json"]).output) == report
    )
    assert run(["regimes", "EURUSD"]).output.startswith("EURUSD 1h: the regime is unknown")


def test_a_recipe_stands_with_its_newest_judged_version(clm: Services) -> None:
    def add(label: str, recipe: str | None, second: int, **changes: object) -> None:
        job = a_job(symbol="BTCUSD", **{name: changes[name] for name in ("model_type",) if name in changes})
        clm.ledger.create_job(job)
        with jobs.running(clm, job) as lease:
            at = datetime(2026, 3, 1, 12, 0, second, tzinfo=UTC)
            fields = {"recipe_digest": recipe, "created_at": at, "params": {"rounds": 2}} | changes
            clm.ledger.add_version(a_version(job, label, **fields), lease)

    failed = ModelStatus.FAILED
    add("v1", "a", 1, status=failed)
    add("v2", "a", 2, status=failed)
    add("v3", "b", 3, status=failed)
    add("v4", None, 4, status=failed)
    add("v5", None, 5, status=failed)
    add("v6", "b", 6)
    add("v7", "c", 7, status=failed, params={})
    add("v8", "d", 8, status=failed, model_type=ModelType.ENSEMBLE)
    newest = clm.ledger.newest_of_recipes("BTCUSD", "1h")
    assert [each.version for each in newest] == ["v5", "v4", "v3", "v2"]
    assert clm.ledger.newest_of_recipes("BTCUSD", "4h") == []
