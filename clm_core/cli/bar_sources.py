"""Sources of bars named by options of a command."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from clm_core.market.bar_source import BarSource


def fetched_source(
    exchange: str | None, database: str | None, deadline: float, base_url: str | None
) -> "BarSource":
    """The exchange or database named by the options.

    Args:
        deadline: time limit of an exchange, seconds.
        base_url: alternative address of the exchange's API.

    Raises:
        UnknownSeries: the settings have no such database.
    """
    from clm_core.market.bar_source import ExchangeSource
    from clm_core.market.exchange import RetryPolicy
    from clm_core.platform.bar_database import database_source
    from clm_core.settings import load_settings

    if database is None and exchange is not None:
        keys = load_settings().exchanges.get(exchange)
        return ExchangeSource(exchange, RetryPolicy(deadline_s=deadline), base_url, keys)
    if database is None or exchange is not None or base_url is not None:
        raise typer.BadParameter("name one source: --exchange NAME (with --base-url) or --database NAME")
    return database_source(load_settings().databases, database)
