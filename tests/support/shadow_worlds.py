"""A market of daily bars whose versions are followed by recorded positions, with a moved clock."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import promoting
from sqlalchemy import Engine, insert, text

from clm_core.decisions.gate_policy import PolicyDocument
from clm_core.domain.actors import Actor
from clm_core.domain.shadow_decisions import ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger.tables import Base, ShadowPlaceRow, ShadowPositionRow
from clm_core.lifecycle import shadow_decisions
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.OPERATOR)
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 400
DAY = timedelta(days=1)
MakeVersion = Callable[..., ModelVersion]


def policies(**rules: object) -> PolicyDocument:
    """Policy by thresholds alone whose shadows end in promotions."""
    rules = {"promotion": "auto", "refresh": "auto"} | rules
    document = promoting.THRESHOLDS_ALONE
    preset = document.presets["thresholds-only"].model_copy(update={"lifecycle": rules})
    return document.model_copy(update={"presets": {"thresholds-only": preset}})


class World:
    """A market of daily bars with a model, whose versions are followed by recorded positions."""

    def __init__(
        self, services: Services, model_id: str, make: MakeVersion, folder: Path, engine: Engine
    ) -> None:
        self.model_id = model_id.replace("_1h", "_1d")
        rng = np.random.default_rng(1)
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, DAYS)))
        opened = np.concatenate([[100.0], close[:-1]])
        time = int(START.timestamp()) * 10**9 + np.arange(DAYS, dtype=np.int64) * Timeframe.D1.nanoseconds
        high = np.maximum(opened, close)
        low = np.minimum(opened, close)
        symbol = self.model_id.split("_")[1].upper()
        columns = (opened, high, low, close, np.ones(DAYS))
        self.bars = Bars(symbol, Timeframe.D1, Calendar.ALWAYS, time, *columns)
        SeriesStore(folder / "data").add(self.bars, "tests", self.when(DAYS))
        moves = np.append(np.diff(opened), 0.0)
        # a position after a bar earns from the next open to the one after
        self.foresight = np.sign(np.append(moves[1:], 0.0))
        self._services = services
        self._make = make
        self._folder = folder
        self._engine = engine

    def when(self, day: float) -> datetime:
        return START + day * DAY

    def services(self, day: float, **rules: object) -> Services:
        market = MarketData(self._folder)
        now = self.when(day)
        return replace(
            self._services, open_market=lambda: market, clock=lambda: now, policies=policies(**rules)
        )

    def of_recipe(self, versions: Sequence[ModelVersion], recipe: str) -> None:
        """Give versions a recipe, as retrains of this release do."""
        change = text("UPDATE model_versions SET recipe_digest = :r WHERE model_id = :m AND version = :v")
        with self._engine.begin() as connection:
            for each in versions:
                connection.execute(change, {"r": recipe, "m": each.model_id, "v": each.version})

    def register(self, day: float) -> ModelVersion:
        return self._make(self.model_id, now=self.when(day))

    def follow(self, version: ModelVersion, positions: Floats, until: int, late: bool = False) -> None:
        """Positions recorded an hour after each bar, or two days after."""
        rows = range(self.bars.row_closed_after(version.created_at), until)
        delay = timedelta(hours=48 if late else 1)
        followed = [
            {
                "model_id": version.model_id,
                "version": version.version,
                "bar_time": self.when(row),
                "position": float(positions[row]),
                "recorded_at": self.when(row + 1) + delay,
            }
            for row in rows
        ]
        with self._engine.begin() as connection:
            connection.execute(insert(Base.metadata.tables[ShadowPositionRow.__tablename__]), followed)

    def decide(self, day: float, **rules: object) -> dict[str, ShadowDecision]:
        clm = self.services(day, **rules)
        decisions, problems = shadow_decisions.decide_all(clm, self.model_id, anew=True)
        assert not any(problems.values()), problems
        return {version: decision for (_, version), decision in decisions.items()}

    def promote(self, version: ModelVersion, day: float) -> None:
        promoting.promote(
            self.services(day), version.model_id, version.version, ADA, "tested", self.when(day)
        )

    def status(self, version: ModelVersion) -> ModelStatus:
        return self._services.ledger.version(version.model_id, version.version).status

    def outcomes(self, engine: Engine) -> list[str | None]:
        table = ShadowPlaceRow.__tablename__
        query = text(f"SELECT outcome FROM {table} WHERE model_id = :id ORDER BY id")
        with engine.begin() as connection:
            return list(connection.scalars(query, {"id": self.model_id}))
