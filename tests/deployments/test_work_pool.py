"""Lists of Prefect that are longer than a page."""

from typing import Any

import pytest

from clm_core.platform import prefect_runs
from clm_core.platform.prefect_runs import MAX_PAGE, ask_for_all
from deployments.work_pool import all_deployments

NUMBERS = [0, 1, MAX_PAGE, MAX_PAGE + 1, 3 * MAX_PAGE]


@pytest.mark.parametrize("number", NUMBERS)
def test_deployments_beyond_the_first_page_are_read(number: int) -> None:
    present: Any = list(range(number))

    def read(limit: int, offset: int) -> Any:
        assert limit <= MAX_PAGE
        return present[offset : offset + limit]

    assert list(all_deployments(read)) == present


@pytest.mark.parametrize("number", NUMBERS)
def test_records_beyond_the_first_page_are_asked_for(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    present = [{"id": str(each)} for each in range(number)]

    def ask(environment: object, method: str, path: str, body: dict[str, Any]) -> Any:
        assert (method, path, body["sort"]) == ("POST", "/flow_runs/filter", "NAME")
        return present[body["offset"] :][: body["limit"]]

    monkeypatch.setattr(prefect_runs, "ask", ask)
    assert list(ask_for_all({}, "/flow_runs/filter", {"sort": "NAME"})) == present
