"""Reproduction: a version trained again from its lineage, and the differences."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from clm_core.domain.costs import MarketCosts
from clm_core.domain.displayed_params import readable
from clm_core.domain.errors import NotFound
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.bundle import card_of, load_bundle, read_card
from clm_core.models.contract import Model, ModelCard, Progress, Recipe
from clm_core.models.ensemble import with_members_of
from clm_core.models.pooled import fit_pool
from clm_core.models.sizing import as_fitted
from clm_core.retraining.code_version import code_version
from clm_core.retraining.steps import fetch_bars, training_costs
from clm_core.services import Services


@dataclass(frozen=True)
class Difference:
    """A property of data, code, parameters or libraries with another value at the version's training."""

    what: str
    """Name of the property."""
    then: str
    now: str


@dataclass(frozen=True)
class Positions:
    """Comparison of two models' positions on the same bars."""

    bars: int
    differing: int
    """Number of bars with positions further apart than the tolerance of the kind of model."""
    largest: float
    """Greatest distance between the two positions of a bar."""
    first: datetime | None
    """Open time of the first differing bar, if any."""


@dataclass(frozen=True)
class Reproduction:
    version: ModelVersion
    differences: tuple[Difference, ...]
    """Differences in data, code, parameters or libraries; possible causes of differing positions."""
    positions: Positions

    @property
    def reproduced(self) -> bool:
        return self.positions.differing == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "model_id": self.version.model_id,
            "version": self.version.version,
            "reproduced": self.reproduced,
            "positions": asdict(self.positions),
            "differences": [asdict(difference) for difference in self.differences],
        }


def reproduce(services: Services, version: ModelVersion) -> Reproduction:
    """Train the version again as its job requested, and compare the result with the stored bundle.

    Raises:
        UnknownSeries: the training data no longer exists.
        BundleCorrupt: the stored bundle differs from the bundle registered.
    """
    job = services.ledger.job(version.training_job_id)
    stored, card = _stored(services, version)
    bars = fetch_bars(services, job).under(stored.trained_on.gap_rules)
    costs = _costs_of(services, version, bars)
    params = catalog.stored_params(job.model_type, job.training_params, job.plugin)
    requested = catalog.recipe(job.model_type, params, costs, job.plugin)
    # members of an ensemble stay as stored: each member is a version to be reproduced by itself
    recipe = as_fitted(with_members_of(requested, stored), card.train_metrics)
    fitted_on = _training_bars(bars, stored)
    again = _fit(recipe, fitted_on, job.seed, lambda done: services.announce("Training again", done))
    different = [
        *_differences({"data": version.data_hash}, {"data": bars.content_hash}),
        *_differences({"code": version.code_version}, {"code": code_version()}),
        *differences(card, card_of(again, recipe)),
    ]
    return Reproduction(version, tuple(different), _compare(stored, again, bars))


def _training_bars(bars: Bars | Panel, stored: Model) -> Bars | Panel:
    """Bars from the first to the last training bar of the stored model, of those that the training saw."""
    first, last = (pd.Timestamp(each).value for each in (stored.trained_on.start, stored.trained_on.end))
    if isinstance(bars, Panel):
        return bars.between(first, last + 1) or bars
    rows = slice(*np.searchsorted(bars.time, [first, last + 1]).tolist())
    return bars[rows] if rows.start < rows.stop else bars


def _fit(recipe: Recipe, bars: Bars | Panel, seed: int, progress: Progress) -> Model:
    if isinstance(bars, Panel):
        return fit_pool(catalog.pooling(recipe), bars, seed, progress)
    return recipe.fit(bars, seed, progress)


def _compare(stored: Model, again: Model, bars: Bars | Panel) -> Positions:
    """Comparison on the bars; of a pool, over the bars of all members."""
    if isinstance(bars, Bars):
        return compare(stored, again, bars)
    each = [compare(stored, again, member) for member in bars]
    return Positions(
        bars=sum(member.bars for member in each),
        differing=sum(member.differing for member in each),
        largest=max(member.largest for member in each),
        first=min((member.first for member in each if member.first is not None), default=None),
    )


def differences(then: ModelCard, now: ModelCard) -> list[Difference]:
    """Differences between two cards in facts that may change the positions."""
    return _differences(_facts(then), _facts(now))


def compare(stored: Model, again: Model, bars: Bars) -> Positions:
    """Compare positions bar by bar, within the tolerance of the kind of model; trees allow none."""
    distance: Floats = np.abs(stored.positions(bars) - again.positions(bars))
    rows = np.flatnonzero(distance > catalog.tolerance(stored))
    return Positions(
        bars=len(bars),
        differing=len(rows),
        largest=float(distance.max()),
        first=bars.index[rows[0]].to_pydatetime() if len(rows) else None,
    )


def _costs_of(services: Services, version: ModelVersion, bars: Bars | Panel) -> MarketCosts:
    """Costs under which the version was trained and judged; those in force for a version never judged."""
    try:
        evaluation, _ = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return training_costs(services, bars)
    if evaluation.terms is not None:
        return evaluation.terms.market_costs
    return MarketCosts(fee_bps=evaluation.fee_bps, slippage_bps=evaluation.slippage_bps)


def _stored(services: Services, version: ModelVersion) -> tuple[Model, ModelCard]:
    services.ledger.removed_files.require_files(version.model_id, version.version)
    with services.registry.fetched(version.model_path) as bundle:
        return load_bundle(bundle, version.bundle_digest), read_card(bundle)


def _facts(card: ModelCard) -> dict[str, object]:
    """Facts of a card that may change the positions, by name; the release itself counts as code."""
    libraries = {f"library {name}": number for name, number in card.libraries.items()}
    libraries.pop("library continuous-learning-manager")
    measured = card.train_metrics
    params = catalog.stored_params(card.model_type, card.params, card.plugin.name if card.plugin else None)
    return {
        **({"device": "GPU" if measured["gpu"] else "processor"} if "gpu" in measured else {}),
        **{f"parameter {name}": value for name, value in readable(card.model_type, params).items()},
        "seed": card.trained_on.seed,
        **libraries,
        **({"series": ", ".join(card.series)} if card.series else {}),
        **{f"source of {each}": each.digest[:12] for each in card.own_features},
    }


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    names = [*then, *(name for name in now if name not in then)]
    pairs = [(name, str(then.get(name, "none")), str(now.get(name, "none"))) for name in names]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]
