from clm_core.lifecycle import watch
from clm_core.services import services
from tasks.step import step


@step("watch production versions")
def watch_production() -> watch.WatchReport:
    return watch.run(services())
