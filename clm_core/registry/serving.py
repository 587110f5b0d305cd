"""Serving code of a version: `mlflow.pyfunc.load_model("models:/…")` runs this file.

The weights are in the bundle beside this file, verified before any parsing.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from clm_core.registry.scoring import Scorer


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    def load_context(self, context: Any) -> None:
        self._scorer = Scorer.load(Path(context.artifacts["bundle"]), context.model_config)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Positions and forecasts for a table of closed bars.

        Args:
            model_input: columns timestamp (bar-open time, UTC), open, high, low, close, volume; oldest first,
                at least as many rows as the version needs (`bars_needed` in the metadata of the version).
            params: optional `allow`, names of rules that the bars may break, separated by commas.

        Returns:
            Columns `position` (-1..1, to be held from the next bar's open) and `forecast` (probability of a
            rise, NaN without a full look-back), one row a bar, over the same index.
        """
        return self._scorer.predict(model_input, datetime.now(UTC), params)

    @property
    def execution(self) -> dict[str, Any]:
        """Rules of the judgement, to trade the positions by: `stop_loss`, `take_profit`, `lot_size` and
        `rebalance_band`; None leaves out a rule (a `rebalance_band` of None: a fixed number of units)."""
        return dict(self._scorer.execution)


mlflow.models.set_model(ServedModel())
