"""A ledger that only these tests write to: what others ask for must not use up their budgets."""

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL
from sqlalchemy import text

from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger
from clm_core.services import Services

DATABASE = "clm_ledger_of_triggers"


@pytest.fixture(scope="session")
def own_services(services: Services) -> Iterator[Services]:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL(f"CREATE DATABASE {DATABASE}"))
    url = urlsplit(services.database.url("ledger"))._replace(path=f"/{DATABASE}").geturl()
    upgrade(url)
    engine = open_engine(url)
    yield replace(services, ledger=Ledger(engine))
    engine.dispose()


@pytest.fixture
def clm(own_services: Services) -> Services:
    """Services on an empty ledger."""
    with own_services.ledger.triggers.transaction() as connection:
        connection.execute(text("RESET ROLE"))
        connection.execute(text("TRUNCATE training_jobs, inbox CASCADE"))
        connection.execute(text("SET ROLE clm_app"))
    return own_services
