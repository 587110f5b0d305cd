"""Charts of the pages."""

from datetime import UTC, datetime

from clm_core.api.pages.charts import HEIGHT, MARGIN, WIDTH, equity_chart
from clm_core.domain.standings import BandPlace, BandPoint, EquityPoint, ProductionStanding

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BAND = tuple(BandPoint(days=day, low=1 - day / 100, middle=1.0, high=1 + day / 100) for day in (0, 5, 10))


def standing(*equity: tuple[float, float], band: tuple[BandPoint, ...] = BAND) -> ProductionStanding:
    return ProductionStanding(
        model_id="xgboost_btcusd_1h",
        version="v20260201_000000",
        since=NOW,
        at=NOW,
        bars=len(equity),
        trades=0,
        drawdown=None,
        hard_stop=0.2,
        equity=tuple(EquityPoint(days=days, equity=value) for days, value in equity),
        band=band,
        expected=band[1] if band else None,
        sentences=(),
    )


def test_the_chart_spans_the_band_and_the_equity() -> None:
    chart = equity_chart(standing((0.0, 1.0), (5.0, 0.9)))
    assert chart is not None
    assert (chart.days, chart.base) == (10, HEIGHT / 2)
    assert chart.end == (WIDTH / 2, HEIGHT - MARGIN)
    places = [tuple(map(float, pair.split(","))) for pair in f"{chart.band} {chart.equity}".split()]
    assert all(MARGIN <= x <= WIDTH - MARGIN and MARGIN <= y <= HEIGHT - MARGIN for x, y in places)


def test_a_standing_without_a_band_or_a_bar_is_drawn_as_far_as_known() -> None:
    flat = equity_chart(standing((0.0, 1.0), (0.0, 1.0), band=()))
    assert flat is not None
    assert (flat.band, flat.middle, len(flat.equity.split())) == ("", "", 2)
    assert equity_chart(standing()) is None


def test_the_place_is_that_of_the_last_equity_against_the_band() -> None:
    places = [standing((0.0, 1.0), (5.0, value)).place for value in (0.94, 0.95, 1.05, 1.06)]
    assert places == [BandPlace.BELOW, BandPlace.INSIDE, BandPlace.INSIDE, BandPlace.ABOVE]
    assert standing((0.0, 1.0), band=()).place is None
    assert standing().place is None
