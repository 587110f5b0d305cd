"""Search behind a version's parameters, found by content: parameters copied by hand were searched, too."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np

from clm_core.domain.kinds import Kind
from clm_core.domain.trials import Trial
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.overfitting import SelectionRisk, selection_risk
from clm_core.evidence.trials import TrialRecord, aligned
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Floats
from clm_core.retraining.strategy_trials import effective_params, search_result_risk


def search_risk(ledger: Ledger, version: ModelVersion, until: datetime | None = None) -> SelectionRisk | None:
    """Risk of the newest search of the model with the version's parameters among its candidates: a search for
    strategies, or a tuning or an evolution of training parameters.

    None for parameters from no search: equal to no candidate, or defaults beside a better candidate.
    Candidates pruned before the last fold take no part.

    Args:
        until: latest time of a trial; None for all.
    """
    kind = Kind(version.model_type, version.plugin)
    params = ledger.job(version.training_job_id).training_params
    market = (version.symbol, version.timeframe)
    if (risk := search_result_risk(ledger, kind, params, market, until)) is not None:
        return risk
    expected = effective_params(kind, params)
    if expected is None:
        return None
    for candidates in _searches(kind, ledger.trials.of_searches(version.model_id, until)):
        names = [name for name in candidates if effective_params(kind, json.loads(name)) == expected]
        if (
            len(candidates) > 1
            and names
            and (expected != effective_params(kind, {}) or _best(candidates) in names)
        ):
            return selection_risk(_common_days(list(candidates.values())))
    return None


def _searches(
    kind: Kind, trials: Iterable[tuple[Trial, TrialRecord]]
) -> Iterable[dict[str, list[TrialRecord]]]:
    """Records of the candidates of each search by parameters, newest search first.

    Trials of a search have the source and the tested days in common.
    """
    searches: dict[tuple[str, int, int], dict[str, list[TrialRecord]]] = {}
    for trial, record in trials:
        if np.isfinite(record.sharpe) or len(record.daily):
            key = (trial.source, record.first_day, len(record.daily))
            name = json.dumps(trial.params, sort_keys=True)
            searches.setdefault(key, defaultdict(list))[name].append(record)
    return reversed(searches.values())


def _best(candidates: Mapping[str, list[TrialRecord]]) -> str:
    """Parameters of the candidate with the highest mean Sharpe ratio over its seeds."""
    return max(candidates, key=lambda name: float(np.mean([each.sharpe for each in candidates[name]])))


def _common_days(candidates: list[list[TrialRecord]]) -> Floats:
    """Daily returns of each candidate, the mean over its seeds, on the days of all, shape (n_days, n)."""
    returns: Floats = np.column_stack([aligned(records).mean(axis=1) for records in candidates])
    return returns[np.isfinite(returns).all(axis=1)]
