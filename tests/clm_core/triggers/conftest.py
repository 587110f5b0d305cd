"""A ledger that only these tests write to: what others ask for must not use up their budgets."""

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL
from sqlalchemy import Engine, NullPool, create_engine, text

from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger
from clm_core.services import Services

DATABASE = "clm_ledger_of_triggers"


@pytest.fixture(scope="session")
def ledger_url(services: Services) -> str:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL(f"CREATE DATABASE {DATABASE}"))
    url = urlsplit(services.database.url("ledger"))._replace(path=f"/{DATABASE}").geturl()
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def engine(ledger_url: str) -> Iterator[Engine]:
    opened = open_engine(ledger_url)
    yield opened
    opened.dispose()


@pytest.fixture
def clm(services: Services, ledger_url: str, engine: Engine) -> Services:
    """Services on an empty ledger."""
    with create_engine(ledger_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("TRUNCATE training_jobs, inbox CASCADE"))
    return replace(services, ledger=Ledger(engine))
