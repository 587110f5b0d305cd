"""Time to read the first and the last page of the version list, against a limit."""

import math
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.table import CLOCK, Row, Timing, faster, timed
from clm_core.domain.listings import VersionQuery
from clm_core.domain.vocabulary import ModelStatus, ModelType, VersionOrder
from clm_core.ledger.store import Ledger
from clm_core.platform.database import open_database
from clm_core.services import open_ledger

VERSIONS = 10_000
LIMIT_S = 0.05
REPEATS = 9
START = datetime(2020, 1, 1, tzinfo=UTC)
SYMBOLS = [f"S{number}USD" for number in range(25)]
TYPES = (ModelType.XGBOOST, ModelType.LIGHTGBM)
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "one model type": {"model_type": ModelType.XGBOOST},
    "one symbol": {"symbol": "S7USD"},
    "one timeframe": {"timeframe": "4h"},
    "one status": {"status": ModelStatus.CANDIDATE},
    "a status without versions": {"status": ModelStatus.SHADOW},
    "Sharpe >= 1.5": {"min_sharpe": 1.5},
    "a month": {"since": START + timedelta(days=100), "until": START + timedelta(days=130)},
    "all filters": {
        "model_type": ModelType.XGBOOST,
        "symbol": "S7USD",
        "timeframe": "1h",
        "status": ModelStatus.CANDIDATE,
        "min_sharpe": 0.5,
        "since": START,
        "until": START + timedelta(days=300),
    },
}

JOBS = text("""
INSERT INTO training_jobs (id, model_id, model_type, symbol, timeframe, dataset_span_days, data_snapshot,
    trigger_reason, training_params, seed, requested_by, status, created_at, started_at, finished_at)
SELECT gen_random_uuid(), :model_id, :model_type, :symbol, :timeframe, 365, '', 'periodic', '{}', 0, 'bench',
    'completed', :at, :at, :at
RETURNING id
""")
TRIALS = text("""
INSERT INTO trials (id, source, model_id, symbol, timeframe, job_id, params, seed, sharpe, skewness,
    kurtosis, bars, effective_bars, period_start, period_end, first_day, daily_returns, at)
SELECT gen_random_uuid(), 'retrain', :model_id, :symbol, :timeframe, :job_id, '{}', 0, 0.1, 0,
    3, 60, 60, :at, :at, 20000, '', :at
RETURNING id
""")
VERSION_ROWS = text("""
INSERT INTO model_versions (model_id, version, model_type, symbol, timeframe, status, training_job_id,
    model_path, mlflow_version, mlflow_run_id, bundle_digest, data_hash, code_version, seed, params,
    environment, train_metrics, validation_metrics, created_at, sharpe_rank, score_rank)
VALUES (:model_id, :version, :model_type, :symbol, :timeframe, :status, :job_id, '', 1, '', '', '', '', 0,
    '{}', '{}', '{}', '{}', :at, :sharpe, :score)
""")
EVALUATIONS = text("""
INSERT INTO evaluations (id, model_id, version, bundle_digest, sharpe_ratio, sortino_ratio, calmar_ratio,
    win_rate, profit_factor, max_drawdown, total_pnl, trades, period_start, period_end, fee_bps,
    slippage_bps, passed, promotion_score, verdict, policy, trial_id, created_at)
VALUES (gen_random_uuid(), :model_id, :version, '', :sharpe, 1, 1, 0.5, 1, -0.1, 0.1, 60, :at, :at, 5, 2,
    false, :score, '{"decision": "fail", "score": 0, "checks": [], "reasons": []}', '{}', :trial_id, :at)
""")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        with open_database(home) as database, open_ledger(database) as engine:
            _fill(engine)
            ledger = Ledger(engine)
            taken = {name: _page(ledger, query) for name, query in _queries(ledger)}
    slowest = max(taken, key=lambda name: taken[name].median(CLOCK))
    name = f"a page of {VERSIONS:,} versions, slowest of {len(taken)} lists: {slowest}"
    return [faster(name, taken[slowest], "limit", LIMIT_S, 1.0)]


def _queries(ledger: Ledger) -> Iterator[tuple[str, VersionQuery]]:
    """First and last page of each list."""
    for order in VersionOrder:
        for descending in (True, False):
            for name, filters in FILTERS.items():
                query = VersionQuery(order=order, descending=descending, **filters)
                title = f"{name}, by {order}, {'falling' if descending else 'rising'}"
                yield f"{title}, first page", query
                yield f"{title}, last page", _last_page(ledger, query)


def _last_page(ledger: Ledger, query: VersionQuery) -> VersionQuery:
    last = query
    cursor = ledger.find_versions(query.model_copy(update={"limit": 1000})).next
    while cursor is not None:
        last = query.model_copy(update={"after": cursor})
        cursor = ledger.find_versions(last.model_copy(update={"limit": 1000})).next
    return last


def _page(ledger: Ledger, query: VersionQuery) -> Timing:
    return timed(lambda: ledger.find_versions(query), REPEATS)


def _fill(engine: Engine) -> None:
    """Insert 50 models with 200 versions each; a tenth of the versions was never judged."""
    rng = random.Random(7)
    with engine.begin() as connection:
        for number in range(VERSIONS):
            version = _version(number, rng)
            version["job_id"] = connection.scalar(JOBS, version)
            judged = rng.random() < 0.9
            places = version if judged else version | {"sharpe": -math.inf, "score": -math.inf}
            connection.execute(VERSION_ROWS, places)
            if judged:
                version["trial_id"] = connection.scalar(TRIALS, version)
                connection.execute(EVALUATIONS, version)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET ROLE NONE"))
        connection.execute(text("ANALYZE"))


def _version(number: int, rng: random.Random) -> dict[str, Any]:
    model_type = TYPES[number % 2]
    symbol = SYMBOLS[number % 25]
    timeframe = rng.choice(("1h", "1h", "1h", "4h"))
    return {
        "model_id": f"{model_type}_{symbol}_{timeframe}".lower(),
        "version": f"v{number:08}",
        "model_type": model_type,
        "symbol": symbol,
        "timeframe": timeframe,
        "status": rng.choice((ModelStatus.CANDIDATE, ModelStatus.FAILED, ModelStatus.RETIRED)),
        "at": START + timedelta(hours=number),
        "sharpe": rng.gauss(0.5, 1.0),
        "score": rng.uniform(0, 100),
    }
