"""Causal features of bars: what a model sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature values, one row a bar; the row of bar t uses bars up to and including t."""

    names: tuple[str, ...]
    values: Floats
    """Shape (n_bars, n_features), C order, read-only; NaN until a feature's warm-up in its stretch is over."""

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows in which every feature has a value, shape (n_bars,)."""
        return np.asarray(~np.isnan(self.values).any(axis=1))


def compute_features(bars: Bars, names: Sequence[str] | None = None) -> FeatureTable:
    """The named features, or all of them, in the order of `FEATURES`."""
    raise NotImplementedError
