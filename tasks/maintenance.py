from clm_core.operations import maintenance
from clm_core.services import services
from tasks.step import step


@step()
def maintain() -> maintenance.MaintenanceReport:
    return maintenance.run(services(), in_full=False)
