"""`clm explain` of a registered version."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotFound
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import RuleFamily
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.services import Services


def test_explain_lists_the_features_of_the_trees_by_their_share(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    name = f"{model_id}@{make_version(model_id).version}"
    command = ["explain", name, "--symbol", "BTCUSD", "--rows", "300"]
    explanation = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    [features] = [each["values"] for each in explanation["sections"] if each["name"] == "features"]
    shares = [each["share"] for each in features["features"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    assert (features["rows"], features["unit"]) == (300, "standard deviations of the return over the horizon")
    shown = CliRunner().invoke(app, [*command, "--section", "features"], catch_exceptions=False).stdout
    assert "SHAP values of 300 bars of BTCUSD" in shown
    assert features["features"][0]["feature"] in shown
    written = CliRunner().invoke(app, [*command, "--page"], catch_exceptions=False).stdout.strip()
    page = Path(written).read_text(encoding="utf-8")
    assert "SHAP values of 300 bars of BTCUSD" in page
    assert 'id="features-bars"' in page
    with pytest.raises(NotFound, match="no section 'weather'; there are: features"):
        CliRunner().invoke(app, [*command, "--section", "weather"], catch_exceptions=False)


def test_compare_shows_two_versions_beside_each_other(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    names = [f"{model_id}@{make_version(model_id, sharpe=ratio).version}" for ratio in (1.25, 2.5)]
    for name in names:
        explained = ["explain", name, "--symbol", "BTCUSD", "--rows", "100"]
        CliRunner().invoke(app, explained, catch_exceptions=False)
    shown = CliRunner().invoke(app, ["compare", *names], catch_exceptions=False).stdout
    assert all(name in shown for name in names)
    assert "0.0% of the shares of mean |SHAP| are with other features." in shown
    comparison = json.loads(
        CliRunner().invoke(app, ["compare", *names, "--json"], catch_exceptions=False).stdout
    )
    assert (comparison["first"], comparison["second"]) == tuple(names)
    sections = {each["name"]: each for each in comparison["sections"]}
    assert sections["verdict"]["values"]["metrics"]["sharpe_ratio"] == [1.25, 2.5]
    assert sections["features"]["values"]["distance"] == 0.0


def test_a_version_without_trees_says_so_by_the_name_of_its_kind(
    services: Services,
    bundle: Any,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    recipe = catalog.strategy(RuleFamily.MOMENTUM).recipe({}, Costs())
    folder = tmp_path / "bundle"
    digest = save_bundle(recipe.fit(bundle.bars, seed=1), recipe, folder, bundle.bars)
    version = make_version(model_id, stored=replace(bundle, folder=folder, digest=digest))
    name = f"{model_id}@{version.version}"
    shown = CliRunner().invoke(app, ["explain", name, "--symbol", "BTCUSD"], catch_exceptions=False).stdout
    assert "momentum has no trees" in shown
