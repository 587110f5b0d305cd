"""Cost of a shadow pass for an old version: rewrites the table of docs/decisions/0067-paper-record.md.

    python -m benchmarks.paper_record [--training 8760]     a minute on an idle core

A model is fitted on bundled hourly bars of BTCUSD, and followed over the 2,000 bars after. The pass for one
new bar is computed as before, from the first bar of the training on, and from the bars needed alone; both
give the same position. Bars handed to the model, and processor time, of each.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.power import table
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.lifecycle.paper_record import OVERLAP, positions_from
from clm_core.market.sources import MarketData
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle, save_bundle

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0067-paper-record.md"
MARK = "<!-- below: python -m benchmarks.paper_record -->\n"
AGE = 2_000
"""Bars since the registration."""
KINDS = (ModelType.XGBOOST, ModelType.LIGHTGBM)
REPETITIONS = 3
CLOSED_BY = datetime(2026, 1, 1, tzinfo=UTC)


def row(kind: ModelType, training: int, folder: Path) -> list[str]:
    """Bars and processor time of a pass before and after, for the default recipe of a kind."""
    bars = MarketData(folder).bars("BTCUSD", "1h", closed_by=CLOSED_BY)[-training - AGE :]
    recipe = catalog.recipe(kind, {}, Costs())
    digest = save_bundle(recipe.fit(bars[:training], seed=1), recipe, folder / kind, bars[:training])
    model = load_bundle(folder / kind, digest)
    market = SimpleNamespace(with_series=lambda known, names: known)
    services = cast("Any", SimpleNamespace(market=market))
    registered = bars.index[training].to_pydatetime()
    version = cast("Any", SimpleNamespace(created_at=registered, params={}, model_id=kind, version="v1"))

    def computed(first: int, whole: bool) -> tuple[np.ndarray, int]:
        return positions_from(services, version, model, bars, first, whole=whole)

    new = AGE - 1
    before = computed(0, True)
    after = computed(new - OVERLAP, False)
    assert np.allclose(before[0][-OVERLAP:], after[0][-OVERLAP:], atol=1e-9), "another position"
    seconds = [_seconds(lambda: computed(0, True)), _seconds(lambda: computed(new - OVERLAP, False))]
    return [
        str(kind),
        f"{before[1]:,}",
        f"{after[1]:,}",
        f"{before[1] / after[1]:.1f}x",
        f"{seconds[0] / seconds[1]:.1f}x",
    ]


def _seconds(step: Callable[[], object]) -> float:
    """Shortest processor time of a few repetitions."""
    times = []
    for _ in range(REPETITIONS):
        begun = time.process_time()
        step()
        times.append(time.process_time() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", type=int, default=8_760)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(kind, given.training, Path(folder)) for kind in KINDS]
    part = table(
        "A pass for one new bar",
        f"Default recipes fitted on {given.training:,} hourly bars, {AGE:,} bars after the registration.",
        ["kind", "bars before", "bars now", "fewer bars", "less processor time"],
        rows,
    )
    print(part)
    head, _ = DOCUMENT.read_text(encoding="utf-8").split(MARK)
    DOCUMENT.write_text(f"{head}{MARK}\n{part}", encoding="utf-8")


if __name__ == "__main__":
    main()
