"""Own features of a training that runs in another process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clm_core.market import own_features
from clm_core.market.own_features import FeatureOrigin
from clm_core.models.params import own_origins


class FeaturesInUse(BaseModel):
    """Files with own features, and the own features that the parameters name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[Path, ...]
    origins: tuple[FeatureOrigin, ...]

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "FeaturesInUse":
        return cls(files=own_features.files(), origins=own_origins(params))

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Use the files while the block lasts.

        Raises:
            FeatureMismatch: a feature is missing in this process, or its source has changed.
        """
        with own_features.use(self.files):
            own_features.require(self.origins)
            yield
