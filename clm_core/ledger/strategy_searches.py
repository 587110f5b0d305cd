"""Searches for strategies: definitions, results, and trials counted as a batch for each generation.

The trials of a batch are counted before a score is used or shown. A batch counts for the parameters that the
search evaluated; other recipes of the market share only the trials of what was handed to the gate.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotFound, StudyDiffers
from clm_core.domain.strategy_search import StrategySearch, StrategySearchResult
from clm_core.ledger import audit_records
from clm_core.ledger.definitions import require_unchanged
from clm_core.ledger.tables import Base, StrategySearchResultRow, StrategySearchRow, StrategyTrialsRow

if TYPE_CHECKING:
    from clm_core.evidence.trials import TrialSketch
    from clm_core.market.bars import Floats

_SEARCHES, _TRIALS, _RESULTS = (
    Base.metadata.tables[row.__tablename__]
    for row in (StrategySearchRow, StrategyTrialsRow, StrategySearchResultRow)
)
SUGGESTED = 5
"""Number of searches suggested if a search is not found."""
STATISTIC = "<f4"
SCORE = "<f8"


@dataclass(frozen=True, eq=False)
class TrialBatch:
    """Trials of a generation, or of the look at the held-out bars."""

    number: int
    """Number of the generation; negative for the look at the held-out bars after generation -number - 1."""
    genes: "Floats"
    """Genes of each candidate, shape (n, n_genes)."""
    scores: "Floats"
    """Scores of each candidate, shape (n, n_objectives), or the metrics on the held-out bars."""
    sketch: "TrialSketch"

    def differences(self, other: "TrialBatch") -> tuple[str, ...]:
        """Names of parts with a differing bit."""
        mine = _row(self)
        theirs = _row(other)
        # the last bits of a sketch depend on the processor's matrix product
        return tuple(name for name in ("trials", "genes", "scores") if mine[name] != theirs[name])


class StrategySearchStore:
    """Searches for strategies. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, search: StrategySearch, generations: int, by: Actor, now: datetime) -> StrategySearch:
        """Record the start or the continuation of a search; returns the definition at the start.

        Args:
            generations: number of generations asked for now.

        Raises:
            StudyDiffers: the search of the same name started with other inputs.
        """
        row = {
            "name": search.name,
            "symbol": search.symbol,
            "timeframe": search.timeframe,
            "definition": search.model_dump(mode="json"),
            "created_at": search.created_at,
        }
        with self._engine.begin() as connection:
            new = insert(_SEARCHES).values(row).on_conflict_do_nothing().returning(_SEARCHES.c.name)
            continued = connection.scalar(new) is None
            began = _search(connection, search.name)
            require_unchanged("search", began.name, "candidates", began.changes(search))
            audit_records.strategy_search_started(connection, began, generations, continued, by, now)
        return began

    def count(self, name: str, batch: TrialBatch, now: datetime) -> None:
        """Count the trials of a batch; a repetition with the same trials changes nothing.

        Raises:
            StudyDiffers: the batch was counted with other candidates or scores.
        """
        row = {"search": name, "at": now, **_row(batch)}
        with self._engine.begin() as connection:
            connection.execute(insert(_TRIALS).values(row).on_conflict_do_nothing())
            stored = _batches(connection, name, batch.genes.shape[1], batch.number)[0]
        if differing := batch.differences(stored):
            raise StudyDiffers(
                f"Batch {batch.number} of the search {name} was counted with other {', '.join(differing)}: "
                "another release, or another processor, computes otherwise. Start a search with another name."
            )

    def batches(self, name: str, n_genes: int, until: datetime | None = None) -> list[TrialBatch]:
        """Counted batches by number.

        Args:
            n_genes: number of genes of a candidate.
            until: latest time of a batch; None for all.
        """
        with self._engine.begin() as connection:
            return _batches(connection, name, n_genes, until=until)

    def end(self, search: StrategySearch, result: StrategySearchResult, now: datetime) -> None:
        """Record the result of a command."""
        row = {"search": search.name, "at": now, "result": result.model_dump(mode="json")}
        with self._engine.begin() as connection:
            connection.execute(insert(_RESULTS).values(row))
            audit_records.strategy_search_ended(connection, search, result, now)

    def find(self, name: str) -> StrategySearch:
        """
        Raises:
            NotFound: the search does not exist; the message names the newest searches.
        """
        with self._engine.begin() as connection:
            return _search(connection, name)

    def exists(self, name: str) -> bool:
        with self._engine.begin() as connection:
            return connection.scalar(select(_SEARCHES.c.name).where(_SEARCHES.c.name == name)) is not None

    def result(self, name: str, until: datetime | None = None) -> StrategySearchResult | None:
        """Newest result of a search that was not interrupted, if any.

        Args:
            until: latest time of the result; None for any.
        """
        query = select(_RESULTS.c.result).where(
            _RESULTS.c.search == name, _RESULTS.c.result["interrupted"].as_boolean().is_(False)
        )
        if until is not None:
            query = query.where(_RESULTS.c.at <= until)
        with self._engine.begin() as connection:
            stored = connection.scalar(query.order_by(_RESULTS.c.at.desc()).limit(1))
        return None if stored is None else StrategySearchResult.model_validate(stored)

    def series(self) -> list[tuple[str, str]]:
        """Symbol and timeframe of every series with a search, by name."""
        query = select(_SEARCHES.c.symbol, _SEARCHES.c.timeframe).distinct().order_by("symbol", "timeframe")
        with self._engine.begin() as connection:
            return [(symbol, timeframe) for symbol, timeframe in connection.execute(query)]

    def of_markets(
        self, markets: Collection[tuple[str, str]], until: datetime | None = None
    ) -> list[StrategySearch]:
        """Searches of series, given as symbol and timeframe, newest first.

        Args:
            until: latest start of a search; None for all.
        """
        query = select(_SEARCHES.c.definition).where(
            tuple_(_SEARCHES.c.symbol, _SEARCHES.c.timeframe).in_(list(markets)),
            *([] if until is None else [_SEARCHES.c.created_at <= until]),
        )
        with self._engine.begin() as connection:
            rows = connection.scalars(query.order_by(_SEARCHES.c.created_at.desc(), _SEARCHES.c.name))
            return [StrategySearch.model_validate(each) for each in rows]


def _search(connection: Connection, name: str) -> StrategySearch:
    definition = connection.scalar(select(_SEARCHES.c.definition).where(_SEARCHES.c.name == name))
    if definition is None:
        newest = select(_SEARCHES.c.name).order_by(_SEARCHES.c.created_at.desc()).limit(SUGGESTED)
        names = ", ".join(connection.scalars(newest))
        advice = f"the newest are {names}" if names else "`clm evolve --strategy` creates the first"
        raise NotFound(f"There is no search {name}; {advice}.")
    return StrategySearch.model_validate(definition)


def _batches(
    connection: Connection, name: str, n_genes: int, number: int | None = None, until: datetime | None = None
) -> list[TrialBatch]:
    query = select(*_TRIALS.c).where(_TRIALS.c.search == name).order_by(_TRIALS.c.batch)
    if number is not None:
        query = query.where(_TRIALS.c.batch == number)
    if until is not None:
        query = query.where(_TRIALS.c.at <= until)
    return [_batch(row, n_genes) for row in connection.execute(query).mappings()]


def _row(batch: TrialBatch) -> dict[str, Any]:
    return {
        "batch": batch.number,
        "trials": batch.sketch.trials,
        "genes": batch.genes.astype(SCORE).tobytes(),
        "scores": batch.scores.astype(SCORE).tobytes(),
        "highest": batch.sketch.highest.astype(STATISTIC).tobytes(),
        "lowest": batch.sketch.lowest.astype(STATISTIC).tobytes(),
    }


def _batch(row: Mapping[Any, Any], n_genes: int) -> TrialBatch:
    import numpy as np

    from clm_core.evidence.trials import TrialSketch

    highest, lowest = (np.frombuffer(row[name], STATISTIC) for name in ("highest", "lowest"))
    genes = np.frombuffer(row["genes"], SCORE).reshape(row["trials"], n_genes)
    scores = np.frombuffer(row["scores"], SCORE).reshape(row["trials"], -1)
    return TrialBatch(row["batch"], genes, scores, TrialSketch(row["trials"], highest, lowest))
