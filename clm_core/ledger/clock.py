"""The database's clock: the one clock by which all processes of an installation judge time.

Clocks of machines differ, and every comparison with a time in the ledger (leases, cooldowns, expiry, budgets)
would differ with them.
"""

from datetime import UTC, datetime

from sqlalchemy import Engine, func, select


def read_clock(engine: Engine) -> datetime:
    """Present time by the clock of the database server, in UTC; also within a long transaction.

    Raises:
        sqlalchemy.exc.OperationalError: the database does not answer.
    """
    with engine.connect() as connection:
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)
