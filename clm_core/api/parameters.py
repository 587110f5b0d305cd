"""Parameters shared by several routes, validated before the ledger is called."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import StringConstraints

from clm_core.domain.listings import MAX_ITEMS

MODEL_ID = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
LABEL = r"^v\d{8}_\d{6}$"

ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID)]
Label = Annotated[str, StringConstraints(pattern=LABEL)]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
"""Text without NUL, as PostgreSQL can store."""

ModelIdInPath = Annotated[str, Path(pattern=MODEL_ID, examples=["xgboost_btcusdt_1h"])]
SearchNameInPath = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_-][\w.-]{0,99}$", examples=["xgboost_btcusdt_1h_20251204_143022"])
]
"""Name of a tuning or an evolution."""
Number = Annotated[int, Query(ge=1, le=2**53, description="`next` of the page before; none: the first page.")]
"""Number of the last item of a page, in lists ordered by number."""
Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="Maximum number of items.")]
LabelInPath = Annotated[str, Path(pattern=LABEL, examples=["v20251204_143022"])]
