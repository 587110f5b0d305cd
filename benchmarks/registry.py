"""Pages of the version list, the first and the deepest, against the time they were allowed."""

import math
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.table import Row, faster, seconds
from clm_core.domain.listings import VersionQuery
from clm_core.domain.vocabulary import ModelStatus, ModelType, VersionOrder
from clm_core.ledger.store import Ledger
from clm_core.platform.database import open_database
from clm_core.services import open_ledger

VERSIONS = 10_000
ALLOWED_S = 0.05
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
    "a status nothing has": {"status": ModelStatus.SHADOW},
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
TRIED = text("""
INSERT INTO trials (id, source, model_id, symbol, timeframe, job_id, params, seed, sharpe, skewness,
    kurtosis, bars, effective_bars, period_start, period_end, first_day, daily_returns, at)
SELECT gen_random_uuid(), 'retrain', :model_id, :symbol, :timeframe, :job_id, '{}', 0, 0.1, 0,
    3, 60, 60, :at, :at, 20000, '', :at
RETURNING id
""")
MADE = text("""
INSERT INTO model_versions (model_id, version, model_type, symbol, timeframe, status, training_job_id,
    model_path, mlflow_version, mlflow_run_id, bundle_digest, data_hash, code_version, seed, params,
    environment, train_metrics, validation_metrics, created_at, sharpe_rank, score_rank)
VALUES (:model_id, :version, :model_type, :symbol, :timeframe, :status, :job_id, '', 1, '', '', '', '', 0,
    '{}', '{}', '{}', '{}', :at, :sharpe, :score)
""")
JUDGED = text("""
INSERT INTO evaluations (id, model_id, version, bundle_digest, sharpe_ratio, sortino_ratio, calmar_ratio,
    win_rate, profit_factor, max_drawdown, total_pnl, trades, period_start, period_end, fee_bps,
    slippage_bps, passed, promotion_score, verdict, policy, trial_id, created_at)
VALUES (gen_random_uuid(), :model_id, :version, '', :sharpe, 1, 1, 0.5, 1, -0.1, 0.1, 60, :at, :at, 5, 2,
    false, :score, '{"decision": "fail"}', '{}', :trial_id, :at)
""")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        with open_database(home) as database, open_ledger(database) as engine:
            _fill(engine)
            ledger = Ledger(engine)
            taken = {name: _page_s(ledger, query) for name, query in _queries(ledger)}
    slowest = max(taken, key=lambda name: taken[name])
    name = f"a page of {VERSIONS:,} versions, slowest of {len(taken)} lists: {slowest}"
    return [faster(name, taken[slowest], "limit", ALLOWED_S, 1.0)]


def _queries(ledger: Ledger) -> Iterator[tuple[str, VersionQuery]]:
    """Each list's first page, and the last that `after` leads to."""
    for order in VersionOrder:
        for descending in (True, False):
            for name, asked in FILTERS.items():
                query = VersionQuery(order=order, descending=descending, **asked)
                called = f"{name}, by {order}, {'falling' if descending else 'rising'}"
                yield f"{called}, first page", query
                yield f"{called}, last page", _last_page(ledger, query)


def _last_page(ledger: Ledger, query: VersionQuery) -> VersionQuery:
    found = query
    following = ledger.find_versions(query.model_copy(update={"limit": 1000})).next
    while following is not None:
        found = query.model_copy(update={"after": following})
        following = ledger.find_versions(found.model_copy(update={"limit": 1000})).next
    return found


def _page_s(ledger: Ledger, query: VersionQuery) -> float:
    return seconds(lambda: ledger.find_versions(query), REPEATS)


def _fill(engine: Engine) -> None:
    """50 models with 200 versions each; one version in ten was never judged."""
    chance = random.Random(7)
    with engine.begin() as connection:
        for number in range(VERSIONS):
            version = _version(number, chance)
            version["job_id"] = connection.scalar(JOBS, version)
            judged = chance.random() < 0.9
            places = version if judged else version | {"sharpe": -math.inf, "score": -math.inf}
            connection.execute(MADE, places)
            if judged:
                version["trial_id"] = connection.scalar(TRIED, version)
                connection.execute(JUDGED, version)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET ROLE NONE"))
        connection.execute(text("ANALYZE"))


def _version(number: int, chance: random.Random) -> dict[str, Any]:
    model_type, symbol = TYPES[number % 2], SYMBOLS[number % 25]
    timeframe = chance.choice(("1h", "1h", "1h", "4h"))
    return {
        "model_id": f"{model_type}_{symbol}_{timeframe}".lower(),
        "version": f"v{number:08}",
        "model_type": model_type,
        "symbol": symbol,
        "timeframe": timeframe,
        "status": chance.choice((ModelStatus.CANDIDATE, ModelStatus.FAILED, ModelStatus.RETIRED)),
        "at": START + timedelta(hours=number),
        "sharpe": chance.gauss(0.5, 1.0),
        "score": chance.uniform(0, 100),
    }
