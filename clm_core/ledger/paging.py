"""Keyset pagination: a page begins after the last row of the preceding page.

A deep page costs as little as the first page, and rows added meanwhile shift nothing. The cursor holds the
last row's sort keys and a fingerprint of the list.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, TypeAdapter
from sqlalchemy import Column, ColumnElement, Select, UnaryExpression, literal, tuple_

from clm_core.domain.errors import InvalidCursor
from clm_core.domain.listings import Listing, Page
from clm_core.domain.spellings import normalise_symbol
from clm_core.ledger.tables import storable

Item = TypeVar("Item")
Keys = Sequence[Column[Any]]
"""Sort keys of a list: unique together, never null."""

_CURSOR = TypeAdapter(tuple[str, ...])
_READERS: dict[type, TypeAdapter[Any]] = {
    datetime: TypeAdapter(AwareDatetime),
    float: TypeAdapter(float),
    str: TypeAdapter(str),
    UUID: TypeAdapter(UUID),
}


def seek(query: Select[Any], keys: Keys, listing: Listing) -> Select[Any]:
    """Query for the rows of a page, and for the first row of the following page.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another list.
    """
    if listing.after is not None:
        values = zip(_place(listing, listing.after, keys), keys, strict=True)
        place = tuple_(*(literal(value, key.type) for value, key in values))
        query = query.where(tuple_(*keys) < place if listing.descending else tuple_(*keys) > place)
    return query.order_by(*ordered(keys, listing)).limit(listing.limit + 1)


def ordered(keys: Sequence[ColumnElement[Any]], listing: Listing) -> list[UnaryExpression[Any]]:
    return [key.desc() if listing.descending else key.asc() for key in keys]


def filters(listing: Listing, *names: str) -> Iterator[tuple[str, Any]]:
    """Column and required value of each named filter that is set.

    Raises:
        InvalidSymbol: the symbol is malformed.
    """
    for name in names:
        value = getattr(listing, name)
        if value is not None:
            yield name, normalise_symbol(value) if name == "symbol" else storable(value)


def created(listing: Listing, at: Column[datetime]) -> list[ColumnElement[bool]]:
    since = [] if listing.since is None else [at >= listing.since]
    return since if listing.until is None else [*since, at < listing.until]


def page(
    rows: Sequence[Mapping[Any, Any]], keys: Keys, listing: Listing, read: Callable[[Mapping[Any, Any]], Item]
) -> Page[Item]:
    """Page made of the rows that `seek` found, with the cursor of the following page."""
    items = rows[: listing.limit]
    following = _cursor(listing, [items[-1][key.name] for key in keys]) if len(rows) > len(items) else None
    return Page(items=tuple(read(row) for row in items), next=following)


def _cursor(listing: Listing, place: Sequence[Any]) -> str:
    content = _CURSOR.dump_json((listing.fingerprint, *map(_written, place)))
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _written(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _place(listing: Listing, cursor: str, keys: Keys) -> list[Any]:
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        fingerprint, *values = _CURSOR.validate_json(content)
        if fingerprint != listing.fingerprint:
            raise InvalidCursor(
                "The cursor belongs to a list with other filters or another order: repeat the query of the "
                "preceding page, or begin without a cursor."
            )
        return [_read(value, key) for value, key in zip(values, keys, strict=True)]
    except ValueError as error:
        raise InvalidCursor(
            f"{cursor!r} is not a cursor: use the cursor of the preceding page, or begin without a cursor."
        ) from error


def _read(value: str, key: Column[Any]) -> Any:
    if storable(value) != value:
        raise ValueError("not a value written by `_written`")
    return _READERS[key.type.python_type].validate_python(value)
