"""Registry of a replay, which holds the models loaded last."""

from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

from clm_core.registry.mlflow_registry import MLflowRegistry

if TYPE_CHECKING:
    from clm_core.models.contract import Model

MAX_MODELS = 16


class LoadingOnceRegistry(MLflowRegistry):
    """Registry that reads and verifies a bundle at the first load.

    For a home that nobody else writes to: damage done to a bundle after its first load is not seen.
    """

    def load(self, uri: str, bundle_digest: str) -> "Model":
        if bundle_digest not in self._loaded:
            self._loaded[bundle_digest] = super().load(uri, bundle_digest)
        self._loaded.move_to_end(bundle_digest)
        while len(self._loaded) > MAX_MODELS:
            self._loaded.popitem(last=False)
        return self._loaded[bundle_digest]

    @cached_property
    def _loaded(self) -> "OrderedDict[str, Model]":
        """Models by the digest of the bundle, the one used least recently first."""
        return OrderedDict()
