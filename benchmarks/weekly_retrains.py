"""A year of weekly retrains of a year of hours, with folds taken over from the weeks before.

python -m benchmarks.run weekly_retrains     half a minute

The steps of `clm retrain` as plain calls in one process, set up like a command's, on a clock put forward by
a week from retrain to retrain: each version is trained, tested for leaks, judged, stored, explained and
reported. PostgreSQL's processes count as well.
"""

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.operations import processor_s_of
from benchmarks.table import PROCESSOR, SECONDS, Row, processor_s, timing_of, within
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.domain.triggers import Answer
from clm_core.domain.vocabulary import ModelType
from clm_core.market.sources import MarketData
from clm_core.platform.garbage_collection import YOUNG_OBJECTS_OF_A_COMMAND, collect_garbage_rarely
from clm_core.services import Replayed, open_services
from clm_core.settings import Settings
from flows.sequences.retrain import retrain

WEEKS = 52
DAYS = 365
LIMIT_S = 20.0
REQUEST = RetrainRequest(
    model_type=ModelType.XGBOOST, symbol="BTCUSD", dataset_span_days=DAYS, requested_by="benchmark"
)


class WeeklyClock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def rows() -> list[Row]:
    collect_garbage_rarely(YOUNG_OBJECTS_OF_A_COMMAND)
    with tempfile.TemporaryDirectory(prefix="clm-weeks-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        market = MarketData(home)
        newest = market.bars("BTCUSD", "1h", closed_by=datetime.now(UTC)).end.to_pydatetime()
        clock = WeeklyClock(newest - timedelta(weeks=WEEKS + 1))
        trainings = home / "trainings"
        trainings.mkdir()
        settings = Settings(home=home, training=TrainingSettings(where=TrainingPlace.INLINE))
        with open_services(settings, replayed=Replayed(clock=clock, market=market, trainings=trainings)):
            # imports, compiled code, and the folds of the year before
            retrain_at(clock, clock.now)
            database = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
            first = clock.now
            began = time.perf_counter()
            before = processor_s() + processor_s_of({database})
            for week in range(1, WEEKS + 1):
                retrain_at(clock, first + timedelta(weeks=week))
            used = processor_s() + processor_s_of({database}) - before
            taken = timing_of([(time.perf_counter() - began, used)])
    name = f"{WEEKS} weekly retrains of xgboost on {DAYS} days of hours, each judged, stored and reported"
    return [within(name, taken, LIMIT_S, SECONDS, PROCESSOR)]


def retrain_at(clock: WeeklyClock, moment: datetime) -> None:
    clock.now = moment
    ended = retrain(REQUEST)
    assert not isinstance(ended.data, Answer), ended.message
