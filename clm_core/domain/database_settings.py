"""Settings of databases that bars are read from."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from clm_core.domain.secret_references import Referable

Column = Literal["time", "open", "high", "low", "close", "volume", "symbol", "timeframe"]


class BarDatabase(BaseModel):
    """A table or query with bars, `[databases.NAME]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    url: Annotated[SecretStr, Referable()]
    """Address for SQLAlchemy: `postgresql://reader:secret@db/market`. PostgreSQL and TimescaleDB are read
    without further packages."""
    table: str | None = None
    """Table or view with a row a bar, with its schema if not the default one: `market.bars`."""
    query: str | None = None
    """Query instead of a table, with the parameters :symbol, :timeframe, :since and :until, which gives the
    columns time, open, high, low, close and volume."""
    columns: dict[Column, str] = {}
    """Columns of the table with other names: `{time = "ts", symbol = "pair"}`."""
    timezone: str | None = None
    """IANA name of the zone of times without a zone, "UTC"; None: such times are refused."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Time limit of a query."""

    @model_validator(mode="after")
    def _table_or_query(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give a table or a query")
        return self
