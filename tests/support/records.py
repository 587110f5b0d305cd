"""Valid jobs, versions and evaluations for a ledger; any field can be replaced."""

import uuid
from datetime import UTC, datetime
from typing import Any

from clm_core.domain.evaluations import EvaluationResult
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.terms import EvaluationTerms, TradingTerms
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, TriggerReason
from clm_core.domain.walk_forward import WalkForwardPlan

TERMS = EvaluationTerms.of(TradingTerms(), WalkForwardPlan(seeds=1), "24x7", 2)
MOMENT = datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC)


def a_job(**changes: Any) -> TrainingJob:
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "model_type": ModelType.XGBOOST,
        "symbol": "BTCUSD",
        "timeframe": "1h",
        "dataset_span_days": 365,
        "data_snapshot": "5a" * 32,
        "trigger_reason": TriggerReason.MANUAL,
        "requested_by": "ada",
        "created_at": MOMENT,
    }
    return TrainingJob(**values | changes)


def a_version(job: TrainingJob, label: str = "v20251204_143022", **changes: Any) -> ModelVersion:
    values: dict[str, Any] = {
        "model_id": job.model_id,
        "version": label,
        "model_type": job.model_type,
        "symbol": job.symbol,
        "timeframe": job.timeframe,
        "status": ModelStatus.TRAINING,
        "training_job_id": job.id,
        "model_path": f"models:/{job.model_id}@{label}",
        "mlflow_version": 1,
        "mlflow_run_id": "run",
        "bundle_digest": "b" * 64,
        "data_hash": "d" * 64,
        "code_version": "0.1.0",
        "seed": job.seed,
        "created_at": MOMENT,
    }
    return ModelVersion(**values | changes)


def an_evaluation(model_id: str, label: str, **changes: Any) -> EvaluationResult:
    """Evaluation of a failed version."""
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "model_id": model_id,
        "version": label,
        "sharpe_ratio": 0.5,
        "sortino_ratio": 0.5,
        "calmar_ratio": 0.5,
        "win_rate": 0.5,
        "profit_factor": 1.1,
        "max_drawdown": -0.2,
        "total_pnl": 0.1,
        "trades": 60,
        "period_start": MOMENT,
        "period_end": MOMENT,
        "fee_bps": 5.0,
        "slippage_bps": 2.0,
        "terms": TERMS,
        "terms_digest": TERMS.digest,
        "passed": False,
        "promotion_score": 40.0,
        "created_at": MOMENT,
    }
    return EvaluationResult(**values | changes)
