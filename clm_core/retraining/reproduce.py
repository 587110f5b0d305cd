"""A version trained again from its lineage, and what differs."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.bundle import card_of, load_bundle, read_card
from clm_core.models.contract import Model, ModelCard
from clm_core.models.ensemble import readable, with_members_of
from clm_core.retraining.steps import code_version, fetch_bars
from clm_core.services import Services


@dataclass(frozen=True)
class Difference:
    """One thing that was otherwise when the version was made."""

    what: str
    then: str
    now: str


@dataclass(frozen=True)
class Positions:
    """Two models' positions on the same bars."""

    bars: int
    differing: int
    """Bars on which they lie further apart than their kind's `Implementation.tolerance`."""
    largest: float
    """Greatest distance between two positions of one bar."""
    first: datetime | None
    """Open time of the first bar on which they differ."""


@dataclass(frozen=True)
class Reproduction:
    version: ModelVersion
    differences: tuple[Difference, ...]
    """In data, code, parameters or libraries; they may explain other positions, or may not have mattered."""
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
    """Train the version again as its job asked for it, and compare it with what is stored.

    Raises:
        UnknownSeries: the data it was trained on is no longer there.
        BundleCorrupt: the stored bundle is not the one that was registered.
    """
    job = services.ledger.job(version.training_job_id)
    bars = fetch_bars(services, job)
    stored, card = _stored(services, version)
    asked = catalog.recipe(job.model_type, job.training_params, services.settings.costs, job.plugin)
    # the members of an ensemble are kept: each of them is a version to be reproduced itself
    recipe = with_members_of(asked, stored)
    again = recipe.fit(bars, job.seed, lambda done: services.announce("Training again", done))
    found = [
        *_differences({"data": version.data_hash}, {"data": bars.content_hash}),
        *_differences({"code": version.code_version}, {"code": code_version()}),
        *differences(card, card_of(again, recipe)),
    ]
    return Reproduction(version, tuple(found), compare(stored, again, bars))


def differences(then: ModelCard, now: ModelCard) -> list[Difference]:
    """In what two cards say that may change the outcome."""
    return _differences(_facts(then), _facts(now))


def compare(stored: Model, again: Model, bars: Bars) -> Positions:
    """Trees have to give the very same positions, networks those within the tolerance of their kind."""
    distance: Floats = np.abs(stored.positions(bars) - again.positions(bars))
    rows = np.flatnonzero(distance > catalog.tolerance(stored))
    return Positions(
        bars=len(bars),
        differing=len(rows),
        largest=float(distance.max()),
        first=bars.index[rows[0]].to_pydatetime() if len(rows) else None,
    )


def _stored(services: Services, version: ModelVersion) -> tuple[Model, ModelCard]:
    with services.registry.fetched(version.model_path) as bundle:
        return load_bundle(bundle, version.bundle_digest), read_card(bundle)


def _facts(card: ModelCard) -> dict[str, object]:
    """What a card says that may change the outcome; a release's own number is part of the code's."""
    libraries = {f"library {name}": number for name, number in card.libraries.items()}
    libraries.pop("library continuous-learning-manager")
    measured = card.train_metrics
    return {
        **({"device": "GPU" if measured["gpu"] else "processor"} if "gpu" in measured else {}),
        **{f"parameter {name}": value for name, value in readable(card.model_type, card.params).items()},
        "seed": card.trained_on.seed,
        **libraries,
    }


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    names = [*then, *(name for name in now if name not in then)]
    pairs = [(name, str(then.get(name, "none")), str(now.get(name, "none"))) for name in names]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]
