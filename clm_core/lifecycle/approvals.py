"""Approvals of promotions: a suspended Prefect run asks a person, and the answer is carried out.

The recorded shadow decisions say what waits; a run is a form and holds no state. Each shadow pass brings
alerts and runs in line with what waits, so that a decision made elsewhere (`clm promote`, REST, a change of
the champion) ends the run, and a run lost with its server is replaced.
"""

from collections.abc import Iterator, Sequence
from uuid import UUID

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.approvals import AnsweredApproval, WaitingApproval, waiting_approval
from clm_core.domain.errors import ApprovalRefused, ServerUnavailable
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.promotions import UNSET, Expected, Unset
from clm_core.lifecycle.shadow import SHADOWED, shadowed_versions
from clm_core.platform.prefect_runs import FormRun, Runs, knows_prefect, prefect_runs
from clm_core.retraining import promoting
from clm_core.services import Services

FLOW = "approve"
"""Name of the flow, and of the deployment."""


def waiting_for(services: Services, model_id: str, label: str) -> WaitingApproval | None:
    """Approval that a version waits for, if any, also one that nobody gave in time.

    Raises:
        NotFound: the version does not exist.
    """
    version = services.ledger.version(model_id, label)
    if version.status not in SHADOWED:
        return None
    history = services.ledger.shadow_decisions.history(model_id, label)
    champion = services.ledger.promotions.champion(model_id)
    days = services.lifecycle(model_id, version.symbol).approval_days
    return waiting_approval(history, champion, days)


def all_waiting(services: Services) -> list[WaitingApproval]:
    """Approvals that wait, the first to expire first."""
    versions = [each for model in shadowed_versions(services, None, None).values() for each in model]
    approvals = (waiting_for(services, each.model_id, each.version) for each in versions)
    return sorted((each for each in approvals if each is not None), key=lambda each: each.until)


def answer(
    services: Services,
    model_id: str,
    label: str,
    approve: bool,
    reason: str,
    actor: Actor,
    expected_champion: Expected = UNSET,
    said_by: str | None = None,
    key: str | None = None,
) -> AnsweredApproval:
    """Promote a version that waits for an approval, or retire the version; `keep_forms` ends alert and run.

    Args:
        reason: reason for the audit log; required for a refusal.
        expected_champion: production version as the person saw it; UNSET for that of the decision.
        said_by: name given by the person, recorded beside the actor.
        key: name of the request, as for `Promotions.promote`.

    Raises:
        ApprovalRefused: nothing waits, the answer is late, or a refusal has no reason.
        NotAllowed, ConflictError, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for a promotion.
        NotFound: the version does not exist.
    """
    waiting = _require_open(services, model_id, label)
    if approve:
        expected = waiting.champion if isinstance(expected_champion, Unset) else expected_champion
        because = reason.strip() or f"approved: {'; '.join(waiting.reasons)}"
        promoting.promote(
            services, model_id, label, actor, because, expected_champion=expected, said_by=said_by, key=key
        )
    else:
        _refuse(services, waiting, reason, actor, said_by)
    crash_at(Fault.APPROVAL_ANSWERED, services.settings.fault)
    status = services.ledger.version(model_id, label).status
    return AnsweredApproval(model_id=model_id, version=label, approved=approve, status=status)


def keep_forms(services: Services) -> list[str]:
    """Bring alerts and Prefect runs in line with the approvals that wait.

    Returns:
        Problems: Prefect is away or has no deployment for the form. The next pass tries again.
    """
    waiting = all_waiting(services)
    lasting = services.alerts.lasting(AlertKind.APPROVAL_WAITS)
    for each in waiting:
        services.alerts.record(_alert(services, each))
        crash_at(Fault.APPROVAL_TOLD, services.settings.fault)
    if not (waiting or lasting):
        return []
    problems = _keep_runs(services, waiting) if knows_prefect(services.settings.home) else []
    if not problems:
        labels = {each.label for each in waiting}
        for alert in lasting:
            if alert.subject not in labels:
                services.alerts.end(AlertKind.APPROVAL_WAITS, alert.subject, services.clock())
    return problems


def _keep_runs(services: Services, waiting: Sequence[WaitingApproval]) -> list[str]:
    """Cancel the runs that ask about nothing any more, and create the missing ones; problems as sentences."""
    try:
        with prefect_runs(services.settings.home) as prefect:
            deployment = prefect.deployments(FLOW).get(FLOW)
            if deployment is None:
                problem = (
                    f"Prefect has no deployment {FLOW}/{FLOW}: `clm deploy`. `clm promote` approves, too."
                )
                return [problem] if waiting else []
            runs = prefect.forms(deployment)
            for run in _obsolete(runs, waiting):
                prefect.cancel(run.id, "The version waits for no approval any more: see `clm show`.")
                crash_at(Fault.FORM_CANCELLED, services.settings.fault)
            for each in _without_form(runs, waiting):
                _open_form(prefect, deployment, each)
                crash_at(Fault.FORM_OPENED, services.settings.fault)
    except ServerUnavailable as error:
        return [f"approvals: {error}"]
    return []


def _require_open(services: Services, model_id: str, label: str) -> WaitingApproval:
    waiting = waiting_for(services, model_id, label)
    if waiting is None:
        status = services.ledger.version(model_id, label).status
        raise ApprovalRefused(
            f"{model_id}@{label} waits for no approval: the status is {status}. "
            "`clm approvals` lists what waits."
        )
    if services.clock() >= waiting.until:
        raise ApprovalRefused(
            f"Nobody answered about {waiting.label} before {waiting.until:%Y-%m-%d %H:%M} UTC: the next "
            "shadow pass retires the version. `clm promote` promotes until then."
        )
    return waiting


def _refuse(
    services: Services, waiting: WaitingApproval, reason: str, actor: Actor, said_by: str | None
) -> None:
    if not reason.strip():
        raise ApprovalRefused(f"A refusal of {waiting.label} needs a reason for the audit: add the reason.")
    by = f" by {said_by}" if said_by else ""
    services.promotions.retire(
        waiting.model_id, waiting.version, actor, f"approval refused{by}: {reason.strip()}", services.clock()
    )


def _alert(services: Services, waiting: WaitingApproval) -> Alert:
    message = (
        f"{waiting.label} waits for an approval until {waiting.until:%Y-%m-%d %H:%M} UTC: "
        f"{'; '.join(waiting.reasons)}. Answer on the page of the run approve {waiting.label} in Prefect, by "
        f"POST /clm/approvals/{waiting.model_id}, or with `clm promote {waiting.label}` or "
        f"`clm retire {waiting.label} --reason ...`; without an answer the version is retired."
    )
    return Alert(kind=AlertKind.APPROVAL_WAITS, subject=waiting.label, message=message, at=services.clock())


def _parameters(waiting: WaitingApproval) -> dict[str, str | None]:
    return {"model_id": waiting.model_id, "version": waiting.version, "champion": waiting.champion}


def _obsolete(runs: Sequence[FormRun], waiting: Sequence[WaitingApproval]) -> Iterator[FormRun]:
    """Runs without an approval to ask for. A run at work is left alone: its answer may be the cause."""
    expected = [_parameters(each) for each in waiting]
    return (run for run in runs if run.rests and run.parameters not in expected)


def _without_form(runs: Sequence[FormRun], waiting: Sequence[WaitingApproval]) -> Iterator[WaitingApproval]:
    open_forms = [run.parameters for run in runs if not run.ended]
    return (each for each in waiting if _parameters(each) not in open_forms)


def _open_form(prefect: Runs, deployment: UUID, waiting: WaitingApproval) -> None:
    # a run that ended without a decision is followed by another; two passes at once create one
    ended = [run for run in prefect.forms(deployment, waiting.label) if run.ended]
    after = max(ended, key=lambda run: run.created).id if ended else "the decision"
    key = f"approval/{waiting.label}/{waiting.champion}/after {after}"
    prefect.create(deployment, _parameters(waiting), key, [waiting.model_id, waiting.label])
