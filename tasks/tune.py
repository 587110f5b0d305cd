from clm_core.domain.kinds import artifact_key
from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneRequest, TuneResult
from clm_core.search.tuning import search as search_trials
from clm_core.services import services
from tasks.progress import progress_bar
from tasks.step import step


@step("search {tuning.name}")
def search(tuning: Tuning, request: TuneRequest) -> TuneResult:
    """A single task for all trials: a trial is a row in the study and in the trial ledger, not a run."""
    with progress_bar(services(), f"{artifact_key(tuning.model_id)}-tuning-progress") as announcing:
        return search_trials(announcing, tuning, request)
