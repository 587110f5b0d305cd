"""Live in the cone: paper returns of a version in shadow and in production beside its backtest, and why it
left."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from clm_core.domain.errors import NotFound, UnknownSeries
from clm_core.domain.explanations import Section
from clm_core.domain.promotions import Promotion, PromotionKind
from clm_core.domain.shadow_decisions import ShadowAction
from clm_core.domain.versions import ModelVersion
from clm_core.explain import cone
from clm_core.explain.cone import Backtested, LivePart, LuckTest, cone_section, live_part
from clm_core.retraining.explaining import gate_fate, luck_at_gate
from clm_core.retraining.judged_backtest import judged_backtest
from clm_core.retraining.shadow_tracks import Stint, markets_since, run_of
from clm_core.services import Services

LEFT = {
    PromotionKind.ROLLBACK: "rolled back",
    PromotionKind.HALT: "halted",
    PromotionKind.PROMOTION: "replaced",
    PromotionKind.ADOPTION: "replaced by hand",
    PromotionKind.ALIAS_MOVED: "replaced by hand",
    PromotionKind.LOSS: "lost from the registry",
}
"""Fate of a production version by the kind of the change that ended it."""
ENDED = {ShadowAction.RETIRE: "retired", ShadowAction.EXPIRE: "expired"}


@dataclass(frozen=True)
class _Span:
    """Time of a version in a place."""

    place: str
    since: datetime
    until: datetime | None
    ended_by: Promotion | None = None


def live_section(services: Services, version: ModelVersion) -> Section:
    """Cone of a version with its paper records on top, and its fate with the probability of bad luck."""
    try:
        backtest = _backtest(services, version)
    except UnknownSeries as error:
        return _without_cone(f"No cone: {error}.")
    if backtest is None:
        return _without_cone(
            "No cone: the out-of-sample positions of the version, or their bars, are stored no more."
        )
    spans = _spans(services, version)
    parts = [(span, part) for span in spans if (part := _part(services, version, span)) is not None]
    fate, luck = _fate(services, version, backtest, spans, dict(parts))
    return cone_section(backtest, [part for _, part in parts], fate, luck)


def _without_cone(sentence: str) -> Section:
    return Section(name=cone.NAME, title=cone.TITLE, sentences=(sentence,))


def _backtest(services: Services, version: ModelVersion) -> Backtested | None:
    """Judged backtest under the home's terms; None if its positions or bars are stored no more.

    Raises:
        UnknownSeries: no bar of the market is stored.
    """
    bars_and_backtest = judged_backtest(services, version)
    return (
        None
        if bars_and_backtest is None
        else cone.backtested(bars_and_backtest[0], bars_and_backtest[1].returns)
    )


def _spans(services: Services, version: ModelVersion) -> list[_Span]:
    """Shadow from the registration to the first promotion, then each time in production."""
    changes = services.ledger.promotions.committed(version.model_id)
    rows = [
        row
        for row, change in enumerate(changes)
        if change.to_version == version.version and change.from_version != version.version
    ]
    first = changes[rows[0]].at if rows else None
    production = [
        _Span("production", changes[row].at, None if end is None else end.at, end)
        for row in rows
        for end in (_end(changes[row + 1 :], version),)
    ]
    return [_Span("shadow", version.created_at, first), *production]


def _end(later: list[Promotion], version: ModelVersion) -> Promotion | None:
    """First change to another version, or to none."""
    return next((change for change in later if change.to_version != version.version), None)


def _part(services: Services, version: ModelVersion, span: _Span) -> LivePart | None:
    """Returns of a span up to the last position recorded in time; None without one."""
    markets = markets_since(services, version, span.since)
    run = run_of(services, [Stint(version, span.since)], markets)
    if run is None:
        return None
    stop = len(run.axis) if span.until is None else run.axis.row_closed_after(span.until)
    counted = np.flatnonzero(run.earned[:stop])
    if not len(counted):
        return None
    rows = slice(0, int(counted[-1]) + 1)
    return live_part(span.place, span.since, run.axis[rows], run.returns[rows], run.earned[rows])


def _fate(
    services: Services,
    version: ModelVersion,
    backtest: Backtested,
    spans: list[_Span],
    parts: Mapping[_Span, LivePart],
) -> tuple[str, LuckTest | None]:
    """Clause on what happened to the version last, and the test of the record behind it."""
    newest = spans[-1]
    part = parts.get(newest)
    luck = None if part is None else cone.luck_of_live(part, backtest)
    if newest.ended_by is not None:
        end = newest.ended_by
        return f"{LEFT[end.kind]} {end.at:%Y-%m-%d %H:%M} UTC ({end.reason})", luck
    if newest.place == "production":
        return "in production", luck
    decided = services.ledger.shadow_decisions.newest(version.model_id, version.version)
    if decided is not None and decided.decision.action in ENDED:
        reasons = "; ".join(decided.decision.reasons)
        return f"{ENDED[decided.decision.action]} in shadow {decided.at:%Y-%m-%d %H:%M} UTC ({reasons})", luck
    return _at_gate(services, version, backtest) or ("in shadow" if part else "", luck)


def _at_gate(
    services: Services, version: ModelVersion, backtest: Backtested
) -> tuple[str, LuckTest | None] | None:
    """Fate at the gate; None for a version that passed or was never judged."""
    try:
        _, verdict = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None
    return None if verdict.passed else (gate_fate(verdict), luck_at_gate(verdict, backtest))
