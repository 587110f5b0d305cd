"""Checks of the registered model in a verified bundle, before a promotion and at loading.

The gate judges activity and skill of the registered model at registration. The bundle holds both
measurements, so a promotion and a loader judge the bytes that would serve, by the limits and in the words of
the gate. What a bundle does not record is not asked for: versions of earlier releases, ensembles, policies
and plug-ins without losses have no skill.
"""

from dataclasses import dataclass
from pathlib import Path

from clm_core.evidence.soundness import Skill, skill_of
from clm_core.models import activity
from clm_core.models.bundle import read_card

NO_SKILL = "no skill against a constant was measured"


@dataclass(frozen=True)
class BundleChecks:
    """Activity and skill of a registered model."""

    inactivity: str | None
    """Reason against the positions on the training tail, or on the golden rows of an earlier release."""
    never_trades: bool
    """True for a model without a position on any bar known."""
    skill: Skill | None
    """Skill against a constant; None where none was measured."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Reasons against the model in production; empty: none."""
        of_skill = None if self.skill is None else self.skill.problem
        return tuple(reason for reason in (self.inactivity, of_skill) if reason is not None)

    @property
    def skill_measured(self) -> bool:
        """True if the skill is known with its standard error."""
        return self.skill is not None and self.skill.measured


def checks_of(bundle: Path) -> BundleChecks:
    """Checks of a verified bundle.

    Raises:
        BundleCorrupt: a record of the bundle is not of this release.
    """
    return BundleChecks(
        activity.problem_of(bundle),
        activity.never_trades(bundle),
        skill_of(read_card(bundle).train_metrics),
    )
