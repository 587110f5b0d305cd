"""End of the suspended runs that ask about a promotion, as soon as a person has decided elsewhere.

Kept apart from `approvals`, whose imports take seconds: most decisions answer no form.
"""

from clm_core.domain.alerts import AlertKind
from clm_core.services import Services


def end_answered_forms(services: Services, model_id: str) -> list[str]:
    """Bring alerts and forms in line with the approvals that wait, after a decision about a model.

    Nothing is done without a form about the model.

    Returns:
        Problems: Prefect does not answer. The next shadow pass tries again.
    """
    lasting = services.alerts.lasting(AlertKind.APPROVAL_WAITS)
    if not any(alert.subject.startswith(f"{model_id}@") for alert in lasting):
        return []
    from clm_core.lifecycle import approvals

    return approvals.keep_forms(services)
