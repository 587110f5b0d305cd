"""Pooled connections: replaced after the end of the server, used without a request before."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, event, text

from clm_core.ledger import engine as engines
from clm_core.ledger.engine import open_engine, pooled_engine
from clm_core.services import Services


@pytest.fixture(params=[open_engine, lambda url: pooled_engine(url, kept=1)], ids=["stores", "locks"])
def pooled(request: pytest.FixtureRequest, services: Services) -> Iterator[Engine]:
    engine: Engine = request.param(services.database.url("ledger"))
    yield engine
    engine.dispose()


@pytest.fixture
def pings(pooled: Engine, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Connections asked for a sign of life."""
    pings = list[object]()
    ask: Callable[[object], bool] = pooled.dialect.do_ping

    def recording(connection: object) -> bool:
        pings.append(connection)
        return ask(connection)

    monkeypatch.setattr(pooled.dialect, "do_ping", recording)
    return pings


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def test_a_connection_that_the_server_has_ended_is_replaced(
    pooled: Engine, services: Services, pings: list[object]
) -> None:
    first = backend(pooled)
    end = text("SELECT pg_terminate_backend(:process, 10000)")
    with pooled_engine(services.database.url("mlflow"), kept=0).connect() as connection:
        assert connection.scalar(end, {"process": first})
    assert backend(pooled) != first
    assert len(pings) == 1


def test_a_connection_in_use_is_asked_nothing(pooled: Engine, pings: list[object]) -> None:
    assert len({backend(pooled) for _ in range(3)}) == 1
    assert pings == []


def test_a_connection_unused_for_seconds_is_asked_for_a_sign_of_life(
    pooled: Engine, pings: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "UNUSED_SECONDS", 0.0)
    assert len({backend(pooled) for _ in range(3)}) == 1
    assert len(pings) == 2


def test_a_new_connection_is_asked_nothing(pooled: Engine, pings: list[object]) -> None:
    opened = list[object]()
    event.listen(pooled, "connect", lambda *new: opened.append(new))
    with pooled.connect(), pooled.connect():
        assert pings == []
    assert len(opened) == 2
