"""Restoration of versions deleted in MLflow, from their files and the ledger's digests.

    lock the model -> end interrupted promotions; a deleted production version is recorded as lost
    -> compare the files with the ledger's digests -> undelete experiment, run and logged model
    -> register the version -> number and audit entry in one transaction -> tags and aliases
    -> a lost production version is promoted again by the promotion protocol

Every step finds the work of an interrupted restoration and goes on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from clm_core.domain.actors import Actor
from clm_core.domain.errors import CLMError, NotFound
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.promotions import Promotion, PromotionKind, authorise
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.registry.deleted_versions import DeletedVersions, VerifiedFiles
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import PREVIOUS, ChangeRequest, Promotions


@dataclass(frozen=True)
class RestoredVersion:
    """One version after a restoration."""

    version: ModelVersion
    former_number: int
    """MLflow's number before the deletion."""
    restored: tuple[str, ...]
    """What was put back, a phrase each; empty if nothing was missing."""


@dataclass(frozen=True)
class RestoredModel:
    """Outcome of a restoration."""

    versions: tuple[RestoredVersion, ...]
    returned: Promotion | None
    """Change that put a lost production version back into production, if one was lost."""
    champion: str | None
    """Production version afterwards."""
    problems: tuple[str, ...]
    """Versions that could not be restored, a sentence each."""


@dataclass(frozen=True)
class Restorations:
    """Restores versions of models."""

    promotions: Promotions

    def restore(
        self, model_id: str, label: str | None, actor: Actor, reason: str, now: datetime
    ) -> RestoredModel:
        """Restore a version, or every version of a model; a lost production version serves again.

        Args:
            label: version; None restores every version with files, and lists those that cannot be restored.

        Raises:
            NotAllowed: the actor's role does not permit the change.
            NotFound: the ledger has no such version, or no version of the model.
            FilesLost: the files of the named version are gone or changed.
            RegistryUnavailable: MLflow does not answer; the command can be repeated.
        """
        authorise(actor, False, reason)
        self._require_known(model_id, label)
        request = ChangeRequest(actor, reason, now)
        with self.promotions.locked(model_id, request) as require_lock:
            restored = list[RestoredVersion]()
            problems = list[str]()
            for version in self._versions(model_id, label):
                try:
                    require_lock()
                    restored.append(self._restore(version, request))
                except CLMError as error:
                    if label is not None:
                        raise
                    problems.append(str(error))
            lost = self._lost_production(model_id, [each.version for each in restored])
            returned = (
                None if lost is None else self.promotions.return_to_production(lost, request, require_lock)
            )
            champion = self._ledger.promotions.champion(model_id)
        return RestoredModel(tuple(restored), returned, champion, tuple(problems))

    @property
    def _ledger(self) -> Ledger:
        return self.promotions.ledger

    @property
    def _registry(self) -> MLflowRegistry:
        return self.promotions.registry

    def _require_known(self, model_id: str, label: str | None) -> None:
        if label is not None:
            self._ledger.version(model_id, label)
        elif model_id not in self._ledger.promotions.models():
            raise NotFound(f"There is no model {model_id}. `clm models` lists the models.")

    def _versions(self, model_id: str, label: str | None) -> list[ModelVersion]:
        """Versions by number, so that the versions of a deleted model get their former numbers.

        Raises:
            FilesLost: the files of the named version were removed.
        """
        if label is not None:
            self._ledger.removed_files.require_files(model_id, label)
            return [self._ledger.version(model_id, label)]
        numbers = self._ledger.promotions.numbers(model_id)
        removed = self._ledger.removed_files.names()
        labels = sorted(numbers, key=lambda each: numbers[each])
        return [self._ledger.version(model_id, each) for each in labels if (model_id, each) not in removed]

    def _restore(self, version: ModelVersion, request: ChangeRequest) -> RestoredVersion:
        deleted = DeletedVersions(self._registry)
        files = deleted.find_files(version)
        restored = deleted.revive(version, files.place)
        number = self._number(deleted, version, files, restored, request)
        after = version
        if restored:
            after = self._ledger.promotions.record_restoration(
                version, number, restored, request.actor, request.reason, request.at
            )
        crash_at(Fault.NUMBER_RECORDED, self.promotions.fault)
        names = [f"tag {name}" for name in deleted.put_back_tags(after, number, files)]
        names += self._put_back_aliases(after)
        if names and not restored:
            self._ledger.promotions.record_restoration(
                after, number, names, request.actor, request.reason, request.at
            )
        restored += names
        return RestoredVersion(after, version.mlflow_version, tuple(restored))

    def _number(
        self,
        deleted: DeletedVersions,
        version: ModelVersion,
        files: VerifiedFiles,
        restored: list[str],
        request: ChangeRequest,
    ) -> int:
        """MLflow's number of the version, registered again if need be."""
        if self._registry.holds(version.model_id, version.mlflow_version, version.mlflow_run_id):
            return version.mlflow_version
        numbers = self._ledger.promotions.numbers(version.model_id)
        taken = {number for label, number in numbers.items() if label != version.version}
        restored.insert(0, "version")
        number = deleted.register(version, files, taken)
        self._describe(version, number, request)
        crash_at(Fault.REGISTERED_AGAIN, self.promotions.fault)
        return number

    def _describe(self, version: ModelVersion, number: int, request: ChangeRequest) -> None:
        """Show creator, verdict and restoration in MLflow, which kept no description."""
        try:
            _, verdict = self._ledger.evaluation(version.model_id, version.version)
        except NotFound:
            verdict = None
        by = self._ledger.job(version.training_job_id).requested_by
        self._registry.show_creator(version.model_id, number, by)
        sentence = f"restored by {request.actor.name}: {request.reason}"
        self._registry.set_status(version.model_id, number, version.status, sentence, request.at, verdict)

    def _put_back_aliases(self, version: ModelVersion) -> list[str]:
        """Point the label, and `previous` if the version was there; returns a phrase for each."""
        expected = [version.version]
        if previous_label(self._ledger.promotions.committed(version.model_id)) == version.version:
            expected.append(PREVIOUS)
        aliases = self._registry.aliases(version.model_id)
        missing = [
            alias for alias in expected if alias not in aliases or aliases[alias] != version.mlflow_version
        ]
        for alias in missing:
            self._registry.point(version.model_id, alias, version.mlflow_version)
        return [f"alias {alias}" for alias in missing]

    def _lost_production(self, model_id: str, restored: Sequence[ModelVersion]) -> ModelVersion | None:
        """The restored version whose loss is the newest change of production, if any."""
        committed = self._ledger.promotions.committed(model_id)
        if not committed or committed[-1].kind is not PromotionKind.LOSS:
            return None
        lost = committed[-1].from_version
        return next((version for version in restored if version.version == lost), None)


def previous_label(history: Sequence[Promotion]) -> str | None:
    """Version at the alias `previous`: replaced by the newest change that replaced a version by another.

    Args:
        history: committed changes of a model, oldest first.
    """
    replaced = [change.from_version for change in history if change.from_version and change.to_version]
    return replaced[-1] if replaced else None
