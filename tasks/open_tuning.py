from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneRequest
from clm_core.search import tuning
from clm_core.services import services
from tasks.asked_by import actor_of_run
from tasks.step import step


@step("open study")
def open_tuning(request: TuneRequest) -> Tuning:
    return tuning.open_tuning(services(), request, actor_of_run())
