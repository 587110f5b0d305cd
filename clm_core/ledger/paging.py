"""Reading a list page by page: each begins after the last row of the one before, wherever that was.

So a deep page costs what the first one does, and rows that are added meanwhile shift nothing. The cursor
holds that row's place in the order, and a fingerprint of the list it belongs to.
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
from clm_core.ledger.tables import storable
from clm_core.market.validation import normalise_symbol

Item = TypeVar("Item")
Keys = Sequence[Column[Any]]
"""What a list is ordered by, and so a row's place in it: unique together, none of them ever null."""

_CURSOR = TypeAdapter(tuple[str, ...])
_READERS: dict[type, TypeAdapter[Any]] = {
    datetime: TypeAdapter(AwareDatetime),
    float: TypeAdapter(float),
    str: TypeAdapter(str),
    UUID: TypeAdapter(UUID),
}


def seek(query: Select[Any], keys: Keys, listing: Listing) -> Select[Any]:
    """The rows of the wanted page and one more, which tells that there is another page.

    Raises:
        InvalidCursor: it is none, or another list's.
    """
    if listing.after is not None:
        values = zip(_place(listing, listing.after, keys), keys, strict=True)
        place = tuple_(*(literal(value, key.type) for value, key in values))
        query = query.where(tuple_(*keys) < place if listing.descending else tuple_(*keys) > place)
    return query.order_by(*ordered(keys, listing)).limit(listing.limit + 1)


def ordered(keys: Sequence[ColumnElement[Any]], listing: Listing) -> list[UnaryExpression[Any]]:
    return [key.desc() if listing.descending else key.asc() for key in keys]


def filters(listing: Listing, *names: str) -> Iterator[tuple[str, Any]]:
    """Those of the named filters that are set, with what has to be equal.

    Raises:
        InvalidSymbol: nothing can have that symbol.
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
    """What `seek` found, and the cursor to go on with."""
    shown = rows[: listing.limit]
    following = _cursor(listing, [shown[-1][key.name] for key in keys]) if len(rows) > len(shown) else None
    return Page(items=tuple(read(row) for row in shown), next=following)


def _cursor(listing: Listing, place: Sequence[Any]) -> str:
    told = _CURSOR.dump_json((listing.fingerprint, *map(_spelt, place)))
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def _spelt(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _place(listing: Listing, cursor: str, keys: Keys) -> list[Any]:
    try:
        told = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        fingerprint, *values = _CURSOR.validate_json(told)
        if fingerprint != listing.fingerprint:
            raise InvalidCursor(
                "The cursor belongs to a list with other filters or another order: ask for that one, or "
                "begin this one without a cursor."
            )
        return [_read(value, key) for value, key in zip(values, keys, strict=True)]
    except ValueError as error:
        raise InvalidCursor(
            f"{cursor!r} is no cursor: use the one that came with the page before, or begin without one."
        ) from error


def _read(value: str, key: Column[Any]) -> Any:
    if storable(value) != value:
        raise ValueError("nothing of ours")
    return _READERS[key.type.python_type].validate_python(value)
