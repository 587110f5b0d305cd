"""Costs of markets as the settings of the home name them; a change is an entry of the audit."""

from datetime import datetime

from sqlalchemy import Engine, func, insert, select

from clm_core.domain.audit import Action
from clm_core.domain.costs import MarketCosts
from clm_core.domain.terms import TradingTerms
from clm_core.ledger import audit_records
from clm_core.ledger.tables import Base, MarketCostsRow
from clm_core.platform.locks import AdvisoryLock

_COSTS = Base.metadata.tables[MarketCostsRow.__tablename__]


class MarketCostStore:
    """Costs of markets. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def settle(self, symbol: str, terms: TradingTerms, now: datetime) -> bool:
        """Record the costs in force for a market, unless the last record is equal.

        Returns:
            True if the costs are new, and an audit entry tells the former and the present costs.
        """
        costs = terms.market_costs
        newest = select(_COSTS.c.costs).where(_COSTS.c.symbol == symbol).order_by(_COSTS.c.number.desc())
        with self._engine.begin() as connection:
            lock = func.pg_advisory_xact_lock(AdvisoryLock.MARKET_COSTS, func.hashtext(symbol))
            # two processes at once would both find the former costs
            connection.execute(select(lock))
            stored = connection.scalar(newest.limit(1))
            before = None if stored is None else MarketCosts.model_validate(stored)
            if costs == before:
                return False
            connection.execute(insert(_COSTS).values(symbol=symbol, costs=costs.model_dump(), at=now))
            details = {
                "from": None if before is None else before.model_dump(),
                "to": costs.model_dump(),
                "origins": terms.origins,
            }
            audit_records.record(connection, Action.MARKET_COSTS_CHANGED, symbol, now, details)
        return True

    def history(self, symbol: str) -> list[tuple[datetime, MarketCosts]]:
        """Recorded costs of a market with the time of each record, oldest first."""
        query = select(_COSTS.c.at, _COSTS.c.costs).where(_COSTS.c.symbol == symbol).order_by(_COSTS.c.number)
        with self._engine.begin() as connection:
            return [(at, MarketCosts.model_validate(costs)) for at, costs in connection.execute(query)]
