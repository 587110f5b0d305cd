"""Execution rules: from positions to orders. The rules belong to a version, the starting capital does not."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

REBALANCE_BAND = 0.02
"""Default band of new versions: an exposure that drifts by 2 % of the equity is traded back."""


def none_of_text(value: object) -> object:
    """None for the text "none": a settings file and a command line cannot write a missing value."""
    return None if value == "none" else value


OptionalLimit = Annotated[float | None, BeforeValidator(none_of_text)]


class ExecutionRules(BaseModel):
    """Rules that turn the positions of a version into orders; "none" leaves out a rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stop_loss: OptionalLimit = Field(default=None, gt=0, lt=1)
    """Adverse move from the average entry price that closes a trade, as a fraction."""
    take_profit: OptionalLimit = Field(default=None, gt=0, allow_inf_nan=False)
    """Favourable move from the average entry price that closes a trade, as a fraction."""
    lot_size: OptionalLimit = Field(default=None, gt=0, allow_inf_nan=False)
    """Smallest tradable quantity; orders are rounded towards zero to whole lots. None for any quantity."""
    rebalance_band: OptionalLimit = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Largest drift of the exposure (position value over equity) at an open without a trade back to target.
    None for a fixed number of units between changes of the target, as in release 0.1.0."""


FIXED_UNITS = ExecutionRules()
"""Rules of versions of releases before rules belonged to a version: no orders, a fixed number of units."""
NEW_VERSIONS = ExecutionRules(rebalance_band=REBALANCE_BAND)
"""Rules of new versions by default."""


class Execution(ExecutionRules):
    """Execution of a backtest: rules and starting capital."""

    initial_cash: float = Field(default=10_000.0, gt=0, allow_inf_nan=False)
    """Starting capital of a backtest, in the currency of the prices."""

    @property
    def rules(self) -> ExecutionRules:
        """The rules without the starting capital."""
        return ExecutionRules(**self.model_dump(exclude={"initial_cash"}))

    def under(self, rules: ExecutionRules) -> Self:
        """The same starting capital under other rules."""
        return self.model_copy(update=rules.model_dump(include=set(ExecutionRules.model_fields)))


class ExecutionSettings(Execution):
    """Execution of new versions, unless their training parameters name other rules."""

    rebalance_band: OptionalLimit = Field(default=REBALANCE_BAND, gt=0, le=1, allow_inf_nan=False)
    """Largest drift of the exposure (position value over equity) at an open without a trade back to target;
    "none" for a fixed number of units between changes of the target."""
