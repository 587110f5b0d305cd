"""A home opened from Python: tables, results, refusals and the end of a session."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from clm_core import CLM
from clm_core.domain.errors import (
    ArgumentRefused,
    InvalidBars,
    InvalidTrainingParams,
    NoHome,
    NotFound,
    PromotionRefused,
    SessionClosed,
    UnknownSeries,
)
from clm_core.domain.triggers import Answer
from clm_core.domain.versions import ModelVersion
from clm_core.retraining.requests import existing_version
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]


@pytest.fixture(scope="module")
def clm(services: Services) -> Iterator[CLM]:
    """The home of the test session, opened once more."""
    with pytest.MonkeyPatch.context() as variables:
        variables.delenv("CLM_HOME", raising=False)
        with CLM.open(services.settings.home, progress=lambda step, share: None) as opened:
            yield opened


def test_the_import_of_the_package_loads_no_library() -> None:
    heavy = "{'pandas', 'numpy', 'pydantic', 'sqlalchemy'}"
    script = f"import sys, clm_core; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


def test_a_folder_without_a_home_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NoHome, match="create=True"):
        CLM.open(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_another_home_is_opened_only_after_the_first_was_closed(clm: CLM, tmp_path: Path) -> None:
    with pytest.raises(SessionClosed, match="is open in this process"):
        CLM.open(tmp_path, create=True)
    assert clm.series().shape[0] >= 2


def test_bars_come_as_a_table_over_utc_and_are_imported_from_one(clm: CLM) -> None:
    bars = clm.bars("BTCUSD", "1h", days=3)
    assert list(bars.columns) == ["open", "high", "low", "close", "volume"]
    assert (len(bars), str(bars.index.tz)) == (72, "UTC")
    info = clm.import_bars(bars, "TABLEUSD", "1h")
    assert (info.symbol, info.bars, info.source) == ("TABLEUSD", 72, "table.parquet")
    pd.testing.assert_frame_equal(clm.bars("TABLEUSD"), bars)
    series = clm.series().set_index("symbol")
    assert series.loc["TABLEUSD", "end"] == bars.index[-1]
    assert series.loc["TABLEUSD", "is_stale"]


def test_a_table_that_breaks_a_rule_is_refused_with_the_rule(clm: CLM) -> None:
    bars = clm.bars("BTCUSD", "1h", days=3)
    with pytest.raises(InvalidBars, match="high-below-low"):
        clm.import_bars(bars.assign(high=bars["low"], low=bars["high"]), "WRONGUSD", "1h")
    with pytest.raises(UnknownSeries, match="WRONGUSD"):
        clm.bars("WRONGUSD")


def test_versions_jobs_and_models_are_tables_with_the_newest_evaluation(
    clm: CLM, make_version: MakeVersion, model_id: str
) -> None:
    judged = make_version(model_id, sharpe=1.75)
    unjudged = make_version(model_id, judged=False)
    versions = clm.versions(model_id).set_index("version")
    assert versions.loc[judged.version, "sharpe_ratio"] == 1.75
    assert pd.isna(versions.loc[unjudged.version, "sharpe_ratio"])
    assert str(clm.versions(model_id).index.tz) == "UTC"
    jobs = clm.jobs(model_id)
    assert set(jobs["job"]) == {str(judged.training_job_id), str(unjudged.training_job_id)}
    assert clm.models().loc[model_id, "state"] == "nothing serves"
    assert clm.versions("no_such_model_1h").empty


def test_a_verdict_is_values_a_table_and_escaped_html(
    clm: CLM, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    report = clm.verdict(f"{model_id}@{version.version}")
    assert (report.passed, report.page, report.picture) == (report.verdict.passed, None, None)
    assert report.headline in repr(report)
    assert report.checks.loc["sharpe_ratio", "limit"] == 1.0
    html = report._repr_html_()
    assert report.decision.value.upper() in html
    assert "<script" not in html
    hostile = report.verdict.model_copy(update={"reasons": ("<script>alert(1)</script>",)})
    shown = type(report)(version, hostile, report.evaluation, (), None, None)._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_a_production_version_is_promoted_loaded_named_and_taken_back(
    clm: CLM, make_version: MakeVersion, model_id: str
) -> None:
    first = make_version(model_id)
    with pytest.raises(NotFound, match="No version of"):
        clm.load(model_id)
    with pytest.raises(PromotionRefused):
        clm.promote(f"{model_id}@{first.version}", "by hand")
    change = clm.promote(f"{model_id}@{first.version}", "tried from Python", force=True)
    assert (change.to_version, change.reason) == (first.version, "tried from Python")
    assert clm.verdict(f"{model_id}@production").version.version == first.version
    assert clm.models().loc[model_id, "production"] == first.version
    second = make_version(model_id)
    clm.promote(f"{model_id}@{second.version}", "next", expected=first.version, force=True)
    assert clm.load(model_id).mlflow_version == second.mlflow_version
    assert clm.rollback(model_id, "worse").to_version == first.version


def test_two_versions_are_compared_by_parameters_and_metrics(
    clm: CLM, make_version: MakeVersion, model_id: str
) -> None:
    names = [f"{model_id}@{make_version(model_id, sharpe=sharpe).version}" for sharpe in (1.25, 2.5)]
    compared = clm.compare(*names)
    assert list(compared.metrics.loc["sharpe_ratio"]) == [1.25, 2.5]
    assert list(compared.parameters.columns) == names
    assert compared.equity.empty
    assert names[0] in compared._repr_html_()
    assert compared.page.exists()


def test_the_version_of_a_completed_job_serves_the_same_request_again(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    unfinished = make_version(model_id, completed=False)
    answers = [Answer.model_construct(job_id=each.training_job_id) for each in (version, unfinished)]
    answers.append(Answer.model_construct(job_id=None))
    versions = [existing_version(services.ledger, answer) for answer in answers]
    assert [each and each.version for each in versions] == [version.version, None, None]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda clm: clm.retrain("xgbost", "BTCUSD"), ArgumentRefused, "model_type: Input should be"),
        (lambda clm: clm.retrain("xgboost", "NOWHERE"), UnknownSeries, "there is no series NOWHERE"),
        (
            lambda clm: clm.retrain("xgboost", "BTCUSD", params={"max_dpeth": 3}),
            InvalidTrainingParams,
            "max_depth",
        ),
        (lambda clm: clm.versions(status="good"), ArgumentRefused, "status: "),
        (lambda clm: clm.jobs(limit=0), ArgumentRefused, "limit: "),
        (lambda clm: clm.verdict("nothing"), NotFound, "clm models"),
    ],
    ids=["kind", "market", "parameter", "status", "limit", "version"],
)
def test_a_mistake_is_refused_in_words_before_anything_is_started(
    clm: CLM, wrong: Callable[[CLM], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong(clm)


def test_the_same_home_is_opened_anew_and_the_session_of_before_is_closed(clm: CLM) -> None:
    # last: the tests before use the session of before
    with CLM.open(clm.home, progress=lambda step, share: None) as again:
        assert (repr(clm), repr(again)) == (f"CLM('{clm.home}', closed)", f"CLM('{clm.home}')")
        assert len(again.series()) > 1
        with pytest.raises(SessionClosed, match=r"open it again with CLM.open\(\)"):
            clm.models()
