"""Artifacts of a retrain on the run's page in the Prefect UI."""

from prefect import get_client, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from clm_core.domain.evaluations import Verdict
from clm_core.domain.kinds import artifact_key
from clm_core.domain.versions import ModelVersion
from clm_core.retraining import pages
from clm_core.retraining.results import TearSheetFiles
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="show {version.model_id} {version.version}")
def show(version: ModelVersion, verdict: Verdict, report: TearSheetFiles) -> None:
    key = artifact_key(version.model_id)
    recipe_from = services().ledger.job(version.training_job_id).recipe_from
    create_markdown_artifact(
        pages.summary_page(services().page_addresses, version, verdict, report, recipe_from),
        key=f"{key}-verdict",
        description=f"{verdict.headline}, score {verdict.score:.1f} of 100.",
    )
    if (beside := pages.beside_champion(services().ledger, version, verdict)) is not None:
        create_markdown_artifact(
            beside, key=f"{key}-champion", description="The new version beside the production version."
        )
    # the list of runs shows names, and no verdict
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=f"{flow_run.name}: {verdict.decision.value.upper()}")
