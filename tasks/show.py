"""What a person sees on the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from clm_core import retraining
from clm_core.domain.evaluations import Verdict
from clm_core.domain.versions import ModelVersion


@task(cache_policy=NO_CACHE, task_run_name="show {version.model_id} {version.version}")
def show(version: ModelVersion, verdict: Verdict, report: retraining.Report) -> None:
    key = version.model_id.replace("_", "-")
    create_markdown_artifact(retraining.summary_page(version, verdict, report), key=f"{key}-verdict")
    create_table_artifact([leg.model_dump() for leg in verdict.legs], key=f"{key}-criteria")
