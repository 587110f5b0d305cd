"""Sets of parameters on their way through the folds, once with each seed, and what is counted of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np

from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.results import Backtest
from clm_core.domain.searches import Search
from clm_core.domain.trials import Trial, TrialSource
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import DAY, TrialRecord, trial_record
from clm_core.market.bars import Bars, Floats
from clm_core.search.folds import FoldPlan, FoldTask, results
from clm_core.search.study import Attempt
from clm_core.services import Services


@dataclass
class TrialRun:
    """A set of parameters on a course: each fold with every seed, then the next fold."""

    params: Mapping[str, Any]
    course: FoldPlan
    first_seed: int
    ids: tuple[UUID, ...]
    """Under which it is counted, one a seed."""
    attempt: Attempt | None = None
    """None: it is not a trial of the study, but a look at the bars held out."""
    positions: list[Floats] = field(default_factory=list)
    """What was computed so far, in that order."""
    tries: int = 1
    """Of what is computed now."""

    def next(self) -> FoldTask:
        number, seed = divmod(len(self.positions), len(self.ids))
        return self.course.fold(number, self.params, self.first_seed + seed)

    @property
    def folds(self) -> int:
        """Those done with every seed."""
        return len(self.positions) // len(self.ids)

    @property
    def has_even(self) -> bool:
        """Whether every seed has come as far."""
        return len(self.positions) % len(self.ids) == 0

    @property
    def is_done(self) -> bool:
        return self.folds == len(self.course.folds)

    @property
    def share(self) -> float:
        """Of its way that it has come, 0..1."""
        return len(self.positions) / (len(self.course.folds) * len(self.ids))

    def add(self, positions: Floats) -> None:
        self.positions.append(positions)
        self.tries = 1

    def of_seed(self, number: int) -> list[Floats]:
        return self.positions[number :: len(self.ids)]


class Counting:
    """The trial ledger as a search writes in it: a trial a seed, from before its first fold is computed."""

    def __init__(self, services: Services, search: Search, bars: Bars, source: TrialSource) -> None:
        self._services, self._search, self._bars, self._source = services, search, bars, source

    def begin(self, walk: TrialRun) -> None:
        search, now = self._search, self._services.clock()
        for trial_id in walk.ids:
            self._services.ledger.trials.begin(
                trial_id, search.symbol, search.timeframe, self._first_day(walk), now
            )

    def tested(self, walk: TrialRun) -> list[Backtest]:
        """Of the folds so far, a seed each; those that nothing is known of are left out."""
        done = filter(None, map(walk.of_seed, range(len(walk.ids))))
        return [results(self._bars, walk.course.first, positions, self._search) for positions in done]

    def sharpe_ratios(self, tested: list[Backtest]) -> list[float]:
        """Annualised."""
        return [float(sharpe_ratio(each.returns, self._bars.periods_per_year)) for each in tested]

    def count(self, walk: TrialRun) -> None:
        """With what was seen of it, before anything is learnt from that."""
        tested = self.tested(walk)
        for number, trial_id in enumerate(walk.ids):
            result = tested[number] if number < len(tested) else None
            trial, record = self._trial(walk, trial_id, walk.first_seed + number, result)
            self._services.ledger.trials.count(trial, record)

    def _trial(
        self, walk: TrialRun, trial_id: UUID, seed: int, result: Backtest | None
    ) -> tuple[Trial, TrialRecord]:
        first, search = walk.course.first, self._search
        if result is not None:
            seen = self._bars[first : first + len(result.returns)]
            record = track_record(result.returns)
            kept = trial_record(seen.time, result.returns, record)
        else:
            seen = self._bars[first : first + 1]
            record = TrackRecord(math.nan, math.nan, math.nan, 0, math.nan)
            kept = TrialRecord(math.nan, math.nan, self._first_day(walk), np.empty(0))
        trial = Trial(
            id=trial_id,
            source=self._source,
            model_id=search.model_id,
            symbol=search.symbol,
            timeframe=search.timeframe,
            job_id=None,
            params=dict(walk.params),
            seed=seed,
            sharpe=record.sharpe,
            skewness=record.skewness,
            kurtosis=record.kurtosis,
            bars=record.bars,
            effective_bars=record.effective_bars,
            period_start=seen.start.to_pydatetime(),
            period_end=seen.end.to_pydatetime(),
            at=self._services.clock(),
        )
        return trial, kept

    def _first_day(self, walk: TrialRun) -> int:
        return int(self._bars.time[walk.course.first] // DAY)
