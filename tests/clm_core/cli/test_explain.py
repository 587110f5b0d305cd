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
from clm_core.domain.errors import ExplanationUnavailable
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
    found = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    shares = [each["share"] for each in found["features"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    assert (found["rows"], found["unit"]) == (300, "standard deviations of the return over the horizon")
    shown = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert f"{name} on 300 bars of BTCUSD" in shown
    assert "█" * 30 in next(line for line in shown.splitlines() if found["features"][0]["feature"] in line)
    written = CliRunner().invoke(app, [*command, "--page"], catch_exceptions=False).stdout.strip()
    assert f"{name}: SHAP values of 300 bars of BTCUSD" in Path(written).read_text(encoding="utf-8")


def test_a_version_without_trees_is_refused_by_the_name_of_its_kind(
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
    with pytest.raises(ExplanationUnavailable, match="momentum has no trees"):
        CliRunner().invoke(app, ["explain", f"{model_id}@{version.version}"], catch_exceptions=False)
