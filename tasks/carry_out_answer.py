from clm_core.domain.actors import FORM
from clm_core.domain.approvals import WaitingApproval
from clm_core.domain.errors import ApprovalRefused, ConflictError, PromotionRefused
from clm_core.lifecycle import approvals
from clm_core.services import services
from tasks.step import step


@step()
def carry_out_answer(waiting: WaitingApproval, approve: bool, reason: str, name: str) -> str:
    """Sentence about the result. The next shadow pass asks again where the version still waits."""
    try:
        answered = approvals.answer(
            services(),
            waiting.model_id,
            waiting.version,
            approve,
            reason,
            FORM,
            expected_champion=waiting.champion,
            said_by=name,
        )
    except (ApprovalRefused, ConflictError, PromotionRefused) as error:
        return f"Nothing was changed: {error}"
    approvals.keep_forms(services())
    return answered.sentence
