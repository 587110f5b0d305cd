"""Real bars with an outage, shared by the tests of all models."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from clm_core.market.bars import FIELDS, Bars
from clm_core.market.sources import MarketData


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Bars:
    """3,000 bundled hourly bars of BTCUSD, less 30 before row 1500: an outage."""
    whole = MarketData(tmp_path_factory.mktemp("home")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    keep = np.r_[0:1500, 1530:3000]
    return replace(whole, **{name: getattr(whole, name)[keep] for name in ("time", *FIELDS)})
