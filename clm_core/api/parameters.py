"""Parameters shared by several routes, validated before the ledger is called."""

from typing import Annotated

from fastapi import Path
from pydantic import StringConstraints

MODEL_ID = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
LABEL = r"^v\d{8}_\d{6}$"

ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID)]
Label = Annotated[str, StringConstraints(pattern=LABEL)]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
"""Text without NUL, as PostgreSQL can store."""

ModelIdInPath = Annotated[str, Path(pattern=MODEL_ID, examples=["xgboost_btcusdt_1h"])]
LabelInPath = Annotated[str, Path(pattern=LABEL, examples=["v20251204_143022"])]
