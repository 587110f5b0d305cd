"""Record of the removed files of failed versions."""

from datetime import datetime

from sqlalchemy import Engine, exists, insert, or_, select

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import FilesLost, IllegalTransition
from clm_core.domain.removed_files import RemovedFiles
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger import audit_records
from clm_core.ledger.tables import Base, EvaluationRow, EvidenceRow, PromotionRow, RemovedFilesRow, VersionRow
from clm_core.ledger.versions import lock_version, version_of

_REMOVED = Base.metadata.tables[RemovedFilesRow.__tablename__]
_VERSIONS = Base.metadata.tables[VersionRow.__tablename__]
_PROMOTIONS = Base.metadata.tables[PromotionRow.__tablename__]
_EVALUATIONS = Base.metadata.tables[EvaluationRow.__tablename__]
_EVIDENCE = Base.metadata.tables[EvidenceRow.__tablename__]
_EVER_PROMOTED = exists().where(
    _PROMOTIONS.c.model_id == _VERSIONS.c.model_id,
    or_(_PROMOTIONS.c.to_version == _VERSIONS.c.version, _PROMOTIONS.c.from_version == _VERSIONS.c.version),
)
_NEWER = _VERSIONS.alias("newer")
_NEWER_RECORD = exists().where(
    _NEWER.c.model_id == _VERSIONS.c.model_id,
    _NEWER.c.recipe_digest == _VERSIONS.c.recipe_digest,
    _NEWER.c.created_at > _VERSIONS.c.created_at,
    _NEWER.c.model_id == _EVALUATIONS.c.model_id,
    _NEWER.c.version == _EVALUATIONS.c.version,
    _EVALUATIONS.c.id == _EVIDENCE.c.evaluation_id,
)
"""A newer version of the recipe has stored positions, and continues the record of the recipe."""


class RemovedFilesStore:
    """Removed files. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def removable(self, created_before: datetime) -> list[ModelVersion]:
        """Failed versions that were never part of a change of production, oldest first.

        The newest version of a recipe stays: the bars since the training belong to the record of the recipe,
        and are followed by its model at the next retrain.

        Versions with a recorded removal are among the versions, because an interrupted removal is repeated.
        """
        query = (
            select(*_VERSIONS.c)
            .where(
                _VERSIONS.c.status == ModelStatus.FAILED,
                _VERSIONS.c.created_at < created_before,
                ~_EVER_PROMOTED,
                or_(_VERSIONS.c.recipe_digest.is_(None), _NEWER_RECORD),
            )
            .order_by(_VERSIONS.c.created_at, _VERSIONS.c.model_id, _VERSIONS.c.version)
        )
        with self._engine.begin() as connection:
            return [version_of(row) for row in connection.execute(query).mappings()]

    def record(
        self, version: ModelVersion, files: int, size: int, by: Actor, now: datetime
    ) -> RemovedFiles | None:
        """Record that the files of a failed version are removed; None if that is recorded already.

        Raises:
            IllegalTransition: the version has another status by now.
        """
        removed = RemovedFiles(
            model_id=version.model_id, version=version.version, files=files, size=size, by=by.name, at=now
        )
        with self._engine.begin() as connection:
            stored = lock_version(connection, version.model_id, version.version)
            if stored.status is not ModelStatus.FAILED:
                raise IllegalTransition(
                    f"{version.model_id} {version.version} is {stored.status} by now: its files stay."
                )
            known = select(_REMOVED.c.version).where(
                _REMOVED.c.model_id == version.model_id, _REMOVED.c.version == version.version
            )
            if connection.scalar(known) is not None:
                return None
            connection.execute(insert(_REMOVED).values(removed.model_dump()))
            details = {"version": version.version, "files": files, "size": size}
            audit_records.record(connection, Action.FILES_REMOVED, version.model_id, now, details, by)
        return removed

    def of(self, model_id: str, label: str) -> RemovedFiles | None:
        """Removal of the files of a version; None for a version with files."""
        query = select(*_REMOVED.c).where(_REMOVED.c.model_id == model_id, _REMOVED.c.version == label)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else RemovedFiles.model_validate(dict(row))

    def require_files(self, model_id: str, label: str) -> None:
        """
        Raises:
            FilesLost: the files of the version were removed.
        """
        removed = self.of(model_id, label)
        if removed is not None:
            raise FilesLost(
                f"{model_id} {label} cannot be loaded: {removed.sentence}. Retrain with the same parameters."
            )

    def names(self) -> set[tuple[str, str]]:
        """Model id and label of all versions without files."""
        with self._engine.begin() as connection:
            return set(connection.execute(select(_REMOVED.c.model_id, _REMOVED.c.version)).tuples())
