from clm_core.domain.shadow_decisions import ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.lifecycle import shadow_decisions
from clm_core.operations.passes import attempt
from clm_core.services import services
from tasks.run_page import run_logger
from tasks.step import step


@step("decide on {version.model_id} {version.version}")
def promote_refresh(version: ModelVersion) -> ShadowDecision | None:
    """Promotes a refresh of the champion's recipe without a shadow; None for any other version.

    The retrain has ended already, and a problem fails no run: the next shadow pass decides again.
    """
    label = f"{version.model_id}@{version.version}"
    decision, problems = attempt(label, lambda: shadow_decisions.decide_on_refresh(services(), version))
    for problem in problems:
        run_logger().warning("%s. The next shadow pass tries again.", problem)
    if decision is not None:
        run_logger().info("%s: %s", label, decision.sentence)
    return decision
