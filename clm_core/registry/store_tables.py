"""Creation of MLflow's tables by one process at a time; MLflow itself lets two migrations collide."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import NullPool, create_engine, func, select

from clm_core.platform.locks import AdvisoryLock


@contextlib.contextmanager
def creating_tables(tracking_uri: str) -> Iterator[None]:
    """Exclusive right to open MLflow's store, which creates or migrates its tables.

    Args:
        tracking_uri: the database, or the address of a server, which creates its tables itself.
    """
    if not tracking_uri.startswith("postgresql"):
        yield
        return
    engine = create_engine(tracking_uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as lock:
        lock.execute(select(func.pg_advisory_lock(AdvisoryLock.MLFLOW_TABLES)))
        yield
