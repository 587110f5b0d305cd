"""Serving code of a version: `mlflow.pyfunc.load_model("models:/…")` runs this file.

The weights are in the bundle beside this file, verified before any parsing.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import validate
from clm_core.models.bundle import load_bundle


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    def load_context(self, context: Any) -> None:
        config = context.model_config
        self._model = load_bundle(Path(context.artifacts["bundle"]), digest=config["bundle_digest"])
        self._symbol = config["symbol"]
        self._timeframe = Timeframe(config["timeframe"])
        self._calendar = Calendar(config["calendar"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Positions and forecasts for a frame of closed bars.

        Args:
            model_input: columns timestamp (UTC bar-open time), open, high, low, close, volume; oldest first.

        Returns:
            Columns `position` (-1..1, to be held from the next bar's open) and `forecast` (probability of a
            rise, NaN without a full look-back), one row a bar, over the same index.
        """
        bars = validate(
            model_input,
            self._symbol,
            self._timeframe,
            self._calendar,
            now=datetime.now(UTC),
            origin="the bars given to predict",
        )
        return pd.DataFrame(
            {"position": self._model.positions(bars), "forecast": self._model.forecast(bars)},
            index=model_input.index,
        )


mlflow.models.set_model(ServedModel())
