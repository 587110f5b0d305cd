"""Reading and inserting rows, as jobs, versions and evaluations have in common."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Integer, Select, Table, bindparam, select
from sqlalchemy.exc import IntegrityError

from clm_core.domain.errors import AlreadyExists, NotFound

LIMIT = "most_rows"
"""Name of the parameter for the number of rows."""


def newest_rows(engine: Engine, table: Table, equal: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """Rows with the given values, newest first.

    Args:
        equal: required value by column; a column with the value None is not compared.
    """
    compared = {column: value for column, value in equal.items() if value is not None}
    query = _newest(table, tuple(compared))
    with engine.begin() as connection:
        return [dict(row) for row in connection.execute(query, compared | {LIMIT: limit}).mappings()]


@cache
def _newest(table: Table, columns: tuple[str, ...]) -> Select[Any]:
    """Query of `newest_rows` with parameters for the values of columns and for `LIMIT`.

    A query made once is also compared once with the compiled queries.
    """
    query = select(*table.c).order_by(table.c.created_at.desc(), *(key.desc() for key in table.primary_key))
    alike = (table.c[column] == bindparam(column) for column in columns)
    return query.where(*alike).limit(bindparam(LIMIT, type_=Integer))


@contextlib.contextmanager
def recording(engine: Engine, subject: str) -> Iterator[Connection]:
    """A transaction whose broken constraints are raised as errors of the domain.

    Args:
        subject: the record, as the error messages name it.

    Raises:
        AlreadyExists: the ledger has a record with the same key.
        NotFound: the ledger lacks a record that the new one refers to.
    """
    from psycopg.errors import ForeignKeyViolation, NotNullViolation, UniqueViolation

    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise AlreadyExists(
                f"{subject} is recorded already: read the record, or create a new one."
            ) from error
        if isinstance(error.orig, ForeignKeyViolation):
            raise NotFound(
                f"{subject} refers to an unrecorded entry: {error.orig.diag.message_detail}"
            ) from error
        if isinstance(error.orig, NotNullViolation) and error.orig.diag.column_name == "trial_id":
            raise NotFound(
                f"{subject}: no trial of the version's job was counted. Count the trial first."
            ) from error
        raise
