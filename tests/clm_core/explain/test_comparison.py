"""Two versions beside each other."""

from datetime import timedelta
from typing import Any

from records import MOMENT, a_job, a_version, an_evaluation

from clm_core.domain.evaluations import Check, Decision, Verdict
from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.explain.comparison import ComparedVersion, comparison_sections

JOB = a_job()


def compared(label: str, **changes: Any) -> ComparedVersion:
    """A version judged and explained; fields of the evaluation and others can be replaced."""
    calibration = {"brier_score": changes.pop("brier", 0.25), "bins": [1, 2], "is_calibrated": True}
    shares = changes.pop("shares", {"a": 0.5, "b": 0.5})
    params = changes.pop("params", {"rounds": 500, "horizon": "auto"})
    features = [{"feature": name, "share": share} for name, share in shares.items()]
    sections = (
        Section(name="features", title="Features", values={"symbol": "BTCUSD", "features": features}),
        Section(name="calibration", title="Calibration", values=calibration),
    )
    check = Check(name="timing", value=0.9, limit=0.95, comparison=">=", passed=False, margin=-0.05)
    return ComparedVersion(
        version=a_version(JOB, label, validation_metrics={"log_loss": 0.69, "sharpe_ratio": 0.5}),
        params=params,
        evaluation=an_evaluation(JOB.model_id, label, **changes),
        verdict=Verdict(decision=Decision.FAIL, score=40.0, checks=(check,), reasons=("timing",)),
        explanation=VersionExplanation(model_id=JOB.model_id, version=label, sections=sections),
    )


def test_versions_stand_beside_each_other_with_what_differs_and_numbers_that_both_have() -> None:
    one = compared("v1")
    other = compared(
        "v2",
        sharpe_ratio=1.25,
        profit_factor=float("nan"),
        period_end=MOMENT + timedelta(days=30),
        shares={"a": 0.9, "c": 0.1},
        params={"rounds": 300, "horizon": "auto"},
        brier=0.2,
    )
    verdict, equity, training, parameters, features, validation, calibration = comparison_sections(one, other)
    assert verdict.sentences == (
        "The evaluations are about different bars: a better metric may be the better period.",
    )
    rows = {name: cells for name, *cells in verdict.tables[0].rows}
    assert rows["verdict"] == ["FAIL: 1 of 1 checks missed"] * 2
    assert rows["Sharpe ratio"] == ["0.50", "1.25"]
    assert rows["profit factor"] == ["1.10", "not measured"]
    assert rows["timing"] == ["0.900", "0.900"]
    assert verdict.values["metrics"]["profit_factor"] == [1.1, None]
    assert training.tables[0].columns == ("", "xgboost_btcusd_1h@v1", "xgboost_btcusd_1h@v2")
    assert training.values["differing"] == {"rounds": [500, 300]}
    assert parameters.tables[0].rows == (("rounds", "500", "300", "differs"), ("horizon", "auto", "auto", ""))
    [lost] = equity.sentences
    assert lost.startswith("The out-of-sample positions of xgboost_btcusd_1h@v1 and xgboost_btcusd_1h@v2")
    assert features.sentences == (
        "50.0% of the shares of mean |SHAP| are with other features: b -50.0%, a +40.0%, c +10.0%.",
    )
    assert features.tables[0].rows == (
        ("a", "50.0%", "90.0%"),
        ("b", "50.0%", "0.0%"),
        ("c", "0.0%", "10.0%"),
    )
    assert validation.tables[0].rows == (("log loss", "0.69", "0.69"),)
    assert calibration.tables[0].rows == (("brier score", "0.25", "0.2"),)


def test_a_version_neither_judged_nor_explained_is_compared_by_its_training() -> None:
    bare = ComparedVersion(a_version(JOB, "v3"), {"rounds": 500, "regime": "calm"}, None, None, None)
    verdict, _, training, parameters = comparison_sections(compared("v1"), bare)
    rows = {name: cells for name, *cells in verdict.tables[0].rows}
    assert rows["verdict"] == ["FAIL: 1 of 1 checks missed", "not judged"]
    assert rows["Sharpe ratio"] == ["0.50", "–"]
    assert training.values["differing"] == {"horizon": ["auto", None], "regime": [None, "calm"]}
    assert ("regime", "–", "calm", "differs") in parameters.tables[0].rows


def test_the_items_that_a_version_lacks_are_named_of_long_lists_of_parameters() -> None:
    one = compared("v1", params={"features": ["a", "b", "c", "d"]})
    other = compared("v2", params={"features": ["a", "b", "c", "e"]})
    rows = {name: cells for name, *cells in comparison_sections(one, other)[2].tables[0].rows}
    assert rows["features"] == ["4 values, only here: d", "4 values, only here: e"]
