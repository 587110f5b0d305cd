"""A ledger for the tests of this folder, and empty databases on demand, on a real PostgreSQL server."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, create_engine, text

from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger
from clm_core.platform.database import Database, open_database


@pytest.fixture(scope="session")
def database(home: Path) -> Iterator[Database]:
    with open_database(home) as opened:
        yield opened


@pytest.fixture(scope="session")
def empty_database(database: Database) -> Callable[[], str]:
    """Function that creates a database without tables and returns the URL."""

    def make() -> str:
        name = f"empty_{uuid.uuid4().hex}"
        with psycopg.connect(database.server, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return urlsplit(database.url("ledger"))._replace(path=f"/{name}").geturl()

    return make


@pytest.fixture(scope="session")
def engine(empty_database: Callable[[], str]) -> Iterator[Engine]:
    """Engine of a ledger reserved for the tests of this folder, which empty the tables."""
    url = empty_database()
    upgrade(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    yield Ledger(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE training_jobs, strategy_candidates CASCADE"))
