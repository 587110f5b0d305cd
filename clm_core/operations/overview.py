"""Overview of all models and history of a model, from the records of the ledger without computation."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from clm_core.domain.allocations import AllocationRun, RecordedWeights
from clm_core.domain.bar_age import DataAge
from clm_core.domain.errors import NotFound
from clm_core.domain.listings import JobQuery, VersionQuery
from clm_core.domain.overviews import (
    AWAITING,
    TIMELINE_KIND_OF,
    Challenger,
    JudgedVersion,
    ModelHistory,
    ModelOverview,
    Overview,
    TimelineEntry,
    TimelineKind,
    changed_decisions,
    is_about,
)
from clm_core.domain.promotions import Promotion
from clm_core.domain.standings import ProductionStanding
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.operations.data_age import data_age
from clm_core.registry.allocation_in_force import allocation_in_force
from clm_core.services import Services

MODELS_SHOWN = 30
"""Models on a page of an overview."""
VERDICTS_SHOWN = 2
"""Newest verdicts of each model in an overview."""
VERSIONS_SHOWN = 50
EVENTS_READ = 400
"""Newest records of each kind behind a time line."""
EVENTS_SHOWN = 100
MAX_VERSIONS = 1000
PENDING_JOBS = JobQuery(status=JobStatus.PENDING, descending=False, limit=20)


def read_overview(services: Services, name: str = "", page: int = 1) -> Overview:
    """All models by id, first the models in need of a person; a page of them with verdicts.

    Args:
        name: part of the model ids on the pages.
        page: number of the page, from 1; the last page for a higher number.
    """
    models = sorted(_models(services, None), key=lambda each: (_calm(each), each.model_id))
    matching = [each for each in models if name.strip().lower() in each.model_id]
    pages = max(math.ceil(len(matching) / MODELS_SHOWN), 1)
    page = min(page, pages)
    shown = matching[(page - 1) * MODELS_SHOWN : page * MODELS_SHOWN]
    verdicts = services.ledger.overviews.verdicts(VERDICTS_SHOWN, [each.model_id for each in shown])
    return Overview(
        at=services.clock(),
        models=tuple(models),
        shown=tuple(_with_verdicts(each, verdicts) for each in shown),
        matching=len(matching),
        page=page,
        pages=pages,
        alerts=tuple(reversed(services.alerts.lasting())),
        training=services.ledger.overviews.unfinished_jobs(),
        pending=services.ledger.find_jobs(PENDING_JOBS).items,
        data=data_age(services),
    )


def read_history(services: Services, model_id: str) -> ModelHistory:
    """A model with versions and time line.

    Raises:
        NotFound: the model has no version.
    """
    query = VersionQuery(model_id=model_id, limit=VERSIONS_SHOWN)
    listed = tuple(services.ledger.find_versions(query).items)
    if not listed:
        raise NotFound(f"There is no model {model_id}: the home page lists the models.")
    [overview] = _models(services, model_id)
    verdicts = services.ledger.overviews.verdicts(VERDICTS_SHOWN, [model_id])
    judged = next((each.version for each in listed if each.evaluation is not None), None)
    data = _of_model(services, listed[0].version)
    markets = [each.bars.market for each in data.markets]
    alerts = (each for each in reversed(services.alerts.lasting()) if is_about(each, model_id, markets))
    return ModelHistory(
        at=services.clock(),
        overview=_with_verdicts(overview, verdicts),
        alerts=tuple(alerts),
        versions=listed,
        judged=None if judged is None else services.ledger.evaluation(model_id, judged.version),
        timeline=tuple(_timeline(services, model_id)),
        data=data,
    )


def _of_model(services: Services, version: ModelVersion) -> DataAge:
    """Ages of the market of a model, or of the members of a pool."""
    ages = data_age(services)
    symbols = services.ledger.pool_members(version.symbol) or (version.symbol,)
    own = tuple(
        each
        for each in ages.markets
        if each.bars.symbol in symbols and each.bars.timeframe == version.timeframe
    )
    return ages.model_copy(update={"markets": own})


def _models(services: Services, model_id: str | None) -> Iterator[ModelOverview]:
    store = services.ledger.overviews
    champions = {each.model_id: each for each in _versions(services, model_id, ModelStatus.PRODUCTION)}
    challengers = defaultdict[str, list[ModelVersion]](list)
    for status in AWAITING:
        for each in _versions(services, model_id, status):
            challengers[each.model_id].append(each)
    decisions = store.decisions(model_id)
    changes = store.changes(model_id)
    weights = store.weights(model_id)
    standings = services.ledger.standings.newest(model_id)
    learned = services.ledger.learning_values.newest(model_id)
    for name in services.ledger.promotions.models() if model_id is None else [model_id]:
        yield ModelOverview(
            model_id=name,
            change=changes.get(name),
            champion=champions.get(name),
            challengers=tuple(
                Challenger(version=each, decision=decisions.get((name, each.version)))
                for each in sorted(challengers[name], key=lambda each: each.created_at)
            ),
            verdicts=(),
            weights=_in_force(services, name, weights.get(name), champions.get(name)),
            standing=_since_promotion(standings.get(name), changes.get(name)),
            learning=learned.get(name),
        )


def _with_verdicts(model: ModelOverview, verdicts: Sequence[JudgedVersion]) -> ModelOverview:
    own = tuple(each for each in verdicts if each.model_id == model.model_id)
    return model.model_copy(update={"verdicts": own})


def _in_force(
    services: Services, model_id: str, weights: RecordedWeights | None, champion: ModelVersion | None
) -> RecordedWeights | None:
    """The weights with the versions in force, unless the next pass will end the allocation."""
    if weights is None or champion is None or weights.arms[0].version == champion.version:
        return None if champion is None else weights
    try:
        now = allocation_in_force(services.ledger, model_id)
    except NotFound:
        # the production version was lost since it was read
        return None
    return None if now.run is None else weights.model_copy(update={"arms": now.arms})


def _since_promotion(
    standing: ProductionStanding | None, change: Promotion | None
) -> ProductionStanding | None:
    """The standing, unless another change of production came after the measured one."""
    if standing is None or change is None or standing.version != change.to_version:
        return None
    return standing if standing.since >= change.at else None


def _versions(services: Services, model_id: str | None, status: ModelStatus) -> list[ModelVersion]:
    return services.ledger.versions(model_id=model_id, status=status, limit=MAX_VERSIONS)


def _calm(model: ModelOverview) -> bool:
    """False for a model with production ended, or with a waiting promotion."""
    was_ended = model.champion is None and model.change is not None
    return not was_ended and not any(each.waits_for for each in model.challengers)


def _timeline(services: Services, model_id: str) -> list[TimelineEntry]:
    """Events of a model, newest first, without repeated decisions."""
    store = services.ledger.overviews
    entries = [*store.trainings(model_id, EVENTS_READ), *store.retirements(model_id, EVENTS_READ)]
    entries += [
        TimelineEntry(
            at=each.at,
            kind=TimelineKind.JUDGED,
            version=each.version,
            by="",
            text="; ".join((each.verdict.headline, *each.verdict.reasons)),
        )
        for each in store.verdicts(EVENTS_SHOWN, [model_id])
    ]
    entries += [
        TimelineEntry(
            at=each.at,
            kind=TimelineKind.SHADOW,
            version=each.version,
            by="",
            text=each.decision.sentence,
        )
        for each in changed_decisions(store.decisions_of(model_id, EVENTS_READ))
    ]
    entries += [
        TimelineEntry(
            at=each.at,
            kind=TIMELINE_KIND_OF[each.kind],
            version=each.to_version or each.from_version,
            by=each.actor,
            text=f"{'forced: ' if each.forced else ''}{each.reason}",
        )
        for each in services.ledger.promotions.committed(model_id)
    ]
    entries += _allocation_entries(services.ledger.allocations.history(model_id, EVENTS_READ))
    kinds = list(TimelineKind)
    entries.sort(key=lambda each: (each.at, kinds.index(each.kind)), reverse=True)
    return entries[:EVENTS_SHOWN]


def _allocation_entries(runs: Sequence[AllocationRun]) -> Iterator[TimelineEntry]:
    """Starts and ends of allocations."""
    for run in runs:
        shared = f"{run.arms[0]} in production shares the capital with {' and '.join(run.arms[1:])}"
        yield TimelineEntry(
            at=run.started_at,
            kind=TimelineKind.ALLOCATION_STARTED,
            version=None,
            by=run.started_by,
            text=": ".join(part for part in ("forced" if run.forced else "", shared, run.reason) if part),
        )
        if run.end is not None and run.ended_at is not None:
            yield TimelineEntry(
                at=run.ended_at,
                kind=TimelineKind.ALLOCATION_ENDED,
                version=None,
                by=run.ended_by or "",
                text=f"{run.end.replace('_', ' ')}: {run.end_reason}",
            )
