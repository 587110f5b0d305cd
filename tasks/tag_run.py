"""Tags of a run, to search by in the Prefect UI; no task, which would take more than the request itself."""

from clm_core.platform.flow_run import current_run
from tasks.run_page import change_run


def tag_run(*tags: str) -> None:
    run = current_run()
    if run is not None:
        change_run(tags={*run.tags, *tags})
