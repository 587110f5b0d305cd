from clm_core.lifecycle import candidates
from clm_core.services import services
from tasks.step import step


@step("evaluate candidates")
def evaluate_candidates() -> candidates.CandidateReport:
    return candidates.run(services())
