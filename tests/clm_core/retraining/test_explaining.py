"""Explanations of versions beside those of earlier versions of the model."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from kind_cases import member
from records import a_job, a_version

from clm_core.backtest.walk_forward import FoldResult
from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.domain.vocabulary import ModelType
from clm_core.retraining.explaining import explanation_file, features_of_folds, loads_torch, with_history


def explanation(version: str, symbol: str = "BTCUSD", **shares: float) -> VersionExplanation:
    features = [{"feature": name, "share": share} for name, share in shares.items()]
    values = {"symbol": symbol, "features": features}
    section = Section(name="features", title="Features", values=values)
    return VersionExplanation(model_id="m", version=version, sections=(section,))


def test_a_version_is_shown_beside_earlier_versions_explained_on_the_same_market(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for each in (
        explanation("v1", a=1.0),
        explanation("v2", a=0.5, b=0.5),
        explanation("v3", symbol="ETHUSD", a=1.0),
        explanation("v5", b=1.0),
    ):
        explanation_file(tmp_path, "m", each.version).write_text(each.model_dump_json())
    explanation_file(tmp_path, "m", "v0").write_text("{}")
    extended = with_history(tmp_path, explanation("v4", a=0.25, b=0.75))
    [_, section] = extended.sections
    assert section.name == "features-versions"
    assert [each["label"] for each in section.values["models"]] == ["v1", "v2", "v4"]
    assert section.values["distances"] == [0.5, 0.25]


def test_the_first_version_with_shares_has_no_history(tmp_path: Path) -> None:
    first = explanation("v1", a=1.0)
    assert with_history(tmp_path, first) == first
    without = VersionExplanation(model_id="m", version="v1", sections=())
    assert with_history(tmp_path, without) == without


@pytest.mark.parametrize(
    ("kind", "params", "loads"),
    [
        (ModelType.XGBOOST, {}, False),
        (ModelType.RL_V3, {}, False),
        (ModelType.NHITS, {}, True),
        (ModelType.ENSEMBLE, {"members": [member(ModelType.XGBOOST), member(ModelType.PATCHTST)]}, True),
        (ModelType.ENSEMBLE, {"members": [member(ModelType.XGBOOST), member(ModelType.LIGHTGBM)]}, False),
    ],
    ids=["trees", "a policy", "a network", "an ensemble with a network", "an ensemble of trees"],
)
def test_models_that_load_torch_are_left_to_the_command(
    kind: ModelType, params: dict[str, object], loads: bool
) -> None:
    assert loads_torch(a_version(a_job(model_type=kind), params=params)) is loads


def a_fold(month: int, importances: dict[str, float]) -> FoldResult:
    moments = [datetime(2025, month, day, tzinfo=UTC) for day in (1, 20, 21, 28)]
    return FoldResult(slice(0, 20), slice(20, 28), *moments, {}, importances)


def test_folds_are_named_by_their_last_training_bar_and_those_without_shares_left_out() -> None:
    folds = [a_fold(1, {"a": 1.0}), a_fold(2, {}), a_fold(3, {"a": 0.75, "b": 0.25})]
    [section] = features_of_folds(folds)
    assert section.sentences == (
        "From 2025-01-20 to 2025-03-20, 25.0% of the shares of the decisions moved from some features to "
        "others: a -25.0%, b +25.0%.",
    )
    assert features_of_folds(folds[1:]) == ()
