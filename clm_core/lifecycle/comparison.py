"""Two stored versions beside each other."""

from clm_core.domain.errors import NotFound
from clm_core.domain.explanations import VersionComparison
from clm_core.domain.versions import ModelVersion
from clm_core.explain.comparison import ComparedVersion, comparison_sections
from clm_core.lifecycle.explanations import stored_explanation
from clm_core.models.ensemble import readable
from clm_core.services import Services


def compare_versions(services: Services, first: ModelVersion, second: ModelVersion) -> VersionComparison:
    """Two versions, of one model or of two, as they were judged and explained; nothing is computed anew."""
    one, other = (_compared(services, version) for version in (first, second))
    return VersionComparison(first=one.name, second=other.name, sections=comparison_sections(one, other))


def _compared(services: Services, version: ModelVersion) -> ComparedVersion:
    try:
        evaluation, verdict = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        evaluation, verdict = None, None
    try:
        explanation = stored_explanation(services, version)
    except NotFound:
        explanation = None
    return ComparedVersion(
        version=version,
        params=readable(version.model_type, version.params),
        evaluation=evaluation,
        verdict=verdict,
        explanation=explanation,
    )
