"""Trial ledger entries of a search: one trial per seed, begun before its first fold is computed."""

import math
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import numpy as np

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.searches import Search
from clm_core.domain.trials import Trial, TrialSource
from clm_core.evidence.track_record import NOT_MEASURED, track_record
from clm_core.evidence.trials import DAY, TrialRecord, statistics_of, trial_record
from clm_core.ledger.trials import TrialStore
from clm_core.market.bars import Bars
from clm_core.search.runs import TrialRun, seed_backtests


class TrialRecorder:
    def __init__(
        self,
        trials: TrialStore,
        search: Search,
        bars: Bars,
        market: MarketTerms,
        source: TrialSource,
        clock: Callable[[], datetime],
    ) -> None:
        self._trials = trials
        self._search = search
        self._bars = bars
        self._market = market
        self._source = source
        self._clock = clock

    def begin(self, run: TrialRun) -> None:
        """Count the trials of a run before any of its folds is computed; a second call changes nothing."""
        now = self._clock()
        for trial_id in run.ids:
            self._trials.begin(
                trial_id, self._search.symbol, self._search.timeframe, self._first_day(run), now
            )

    def count(self, run: TrialRun) -> None:
        """Record the trials of a run with the returns of the completed folds."""
        backtests = seed_backtests(run, self._bars, self._market)
        for number, trial_id in enumerate(run.ids):
            result = backtests[number] if number < len(backtests) else None
            trial, record = self._trial(run, trial_id, run.first_seed + number, result)
            self._trials.count(trial, record)

    def _trial(
        self, run: TrialRun, trial_id: UUID, seed: int, result: Backtest | None
    ) -> tuple[Trial, TrialRecord]:
        first = run.fold_plan.first
        if result is not None:
            evaluated = self._bars[first : first + len(result.returns)]
            statistics = track_record(result.returns)
            record = trial_record(evaluated.time, result.returns, statistics)
        else:
            evaluated = self._bars[first : first + 1]
            statistics = NOT_MEASURED
            record = TrialRecord(math.nan, math.nan, self._first_day(run), np.empty(0))
        trial = Trial(
            id=trial_id,
            source=self._source,
            model_id=self._search.model_id,
            symbol=self._search.symbol,
            timeframe=self._search.timeframe,
            job_id=None,
            params=dict(run.params),
            seed=seed,
            **statistics_of(statistics),
            period_start=evaluated.start.to_pydatetime(),
            period_end=evaluated.end.to_pydatetime(),
            at=self._clock(),
        )
        return trial, record

    def _first_day(self, run: TrialRun) -> int:
        return int(self._bars.time[run.fold_plan.first] // DAY)
