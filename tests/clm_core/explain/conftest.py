"""Bars of a real market."""

from datetime import UTC, datetime

import pytest

from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Bars:
    """3,000 bundled hourly bars of BTCUSD."""
    whole = MarketData(tmp_path_factory.mktemp("home")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    return whole[:3000]
