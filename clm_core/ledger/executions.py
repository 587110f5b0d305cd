"""Execution of stored versions: their own, or for versions without, the one under which they were judged."""

from clm_core.domain.errors import NotFound
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.models import catalog
from clm_core.models.params import EXECUTION


def version_execution(ledger: Ledger, version: ModelVersion, installation: ExecutionRules) -> ExecutionRules:
    """Rules under which a version is compared, shadowed, watched and traded: those of the judgement.

    A version without rules of its own was judged under the settings of the time, which its evaluation
    recorded. Release 0.1.0 recorded none: the rules are then those of the installation, with a fixed number
    of units.

    Args:
        installation: rules of the settings in force.
    """
    if EXECUTION not in version.params and (recorded := _recorded(ledger, version)) is not None:
        return recorded
    return catalog.version_execution(version.params, installation)


def _recorded(ledger: Ledger, version: ModelVersion) -> ExecutionRules | None:
    """Rules of the newest evaluation; None for a version never judged, or by a release without terms."""
    try:
        evaluation, _ = ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None
    return None if evaluation.terms is None else evaluation.terms.execution.rules
