from clm_core.domain.replays import ReplayRequest, ReplayResult
from clm_core.explain.replay_sections import headline, markdown
from clm_core.lifecycle import replay as replaying
from clm_core.lifecycle.kept_replays import keep
from clm_core.platform.flow_run import current_run
from clm_core.services import services
from tasks.progress import progress_bar
from tasks.run_page import show_markdown
from tasks.step import step

KEY = "replay"


@step("replay {request.market} {request.start} to {request.end}")
def replay_days(request: ReplayRequest) -> ReplayResult:
    with progress_bar(services(), f"{KEY}-progress") as announcing:
        return replaying.run(announcing.settings, announcing.market, request, announcing.announce)


@step("show the replay")
def show_replay(result: ReplayResult) -> None:
    clm = services()
    run = current_run()
    page = replaying.write_page(clm.settings.home, result)
    keep(clm.reports, page, result, None if run is None else str(run.id))
    show_markdown(KEY, lambda: markdown(result, page), headline(result.policies[0]))
