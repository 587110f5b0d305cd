"""A replay of the past, and the page about it."""

from clm_core.domain.replays import ReplayRequest, ReplayResult
from clm_core.explain.replay_sections import headline
from clm_core.platform.prefect_runs import SEARCH_TAG
from flows.sequences.ended import Ended
from tasks.replay import replay_days, show_replay
from tasks.tag_run import tag_run


def replay(request: ReplayRequest) -> Ended[ReplayResult]:
    tag_run(SEARCH_TAG, str(request.kind), "replay")
    result = replay_days(request)
    show_replay(result)
    return Ended(headline(result.policies[0]), result)
