"""Execution of stored versions: of the version, or of the judgement for versions of older releases."""

from clm_core.domain.errors import NotFound
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.recipes import EXECUTION
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.models import catalog


def version_execution(ledger: Ledger, version: ModelVersion, installation: ExecutionRules) -> ExecutionRules:
    """Rules to compare, shadow, watch and trade a version under, equal to the rules of the judgement.

    A version without rules was judged under the settings of the time, recorded with the evaluation. Release
    0.1.0 recorded no rules: the installation's then apply, with a fixed number of units.

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
