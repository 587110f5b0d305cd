"""Artifacts of a retrain on the run's page in the Prefect UI; no task, which would take more than they do."""

from clm_core.domain.evaluations import Verdict
from clm_core.domain.kinds import artifact_key
from clm_core.domain.versions import ModelVersion
from clm_core.platform.flow_run import current_run
from clm_core.retraining import pages
from clm_core.retraining.results import TearSheetFiles
from clm_core.services import services
from tasks.run_page import change_run, show_markdown


def show(version: ModelVersion, verdict: Verdict, report: TearSheetFiles) -> None:
    run = current_run()
    if run is None:
        return
    key = artifact_key(version.model_id)
    recipe_from = services().ledger.job(version.training_job_id).recipe_from
    show_markdown(
        f"{key}-verdict",
        lambda: pages.summary_page(services().page_addresses, version, verdict, report, recipe_from),
        f"{verdict.headline}, score {verdict.score:.1f} of 100.",
    )
    if (beside := pages.beside_champion(services().ledger, version, verdict)) is not None:
        show_markdown(f"{key}-champion", lambda: beside, "The new version beside the production version.")
    # the list of runs shows names, and no verdict
    change_run(name=f"{run.name}: {verdict.decision.value.upper()}")
