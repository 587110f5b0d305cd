"""Reports of fills and their figures, on a real ledger with recorded positions and stored bars."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from shadow_worlds import ADA, MakeVersion, World
from sqlalchemy import Engine

from clm_core.domain.costs import Costs
from clm_core.domain.errors import AlreadyExists, BarNotStored, CLMError, FillRefused, NotFound
from clm_core.domain.fills import Fill, FillQuery, FillReceipt
from clm_core.domain.versions import ModelVersion
from clm_core.lifecycle.fills import fill_figures, fills_of, realised_bars, report_fills
from clm_core.lifecycle.learning import learning_value
from clm_core.market.timeframes import Calendar
from clm_core.retraining.shadow_tracks import Stint, compare_in_shadow
from clm_core.services import Services

NOW = 150


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


@pytest.fixture
def version(world: World) -> ModelVersion:
    """Version in production from the middle of day 10 on, with foresight."""
    registered = world.register(9)
    world.follow(registered, world.foresight, NOW)
    world.promote(registered, 10.5)
    return registered


def fill(world: World, traded: ModelVersion, day: float, change: float = 1.0, **fields: object) -> Fill:
    stated = {
        "id": f"f{day}",
        "model_id": traded.model_id,
        "version": traded.version,
        "time": world.when(day),
        "change": change,
        "price": float(world.bars.open[int(day)]),
    }
    return Fill.model_validate(stated | fields)


def test_a_report_sent_again_changes_nothing(world: World, version: ModelVersion) -> None:
    clm = world.services(NOW)
    fills = [fill(world, version, 12.1), fill(world, version, 13.1, -1.0, symbol=version.symbol.lower())]
    assert report_fills(clm, fills, ADA) == FillReceipt(new=2, known=0)
    assert report_fills(clm, fills, ADA) == FillReceipt(new=0, known=2)
    mixed = [fill(world, version, 14.1), fills[0].model_copy(update={"price": fills[0].price * 1.001})]
    with pytest.raises(AlreadyExists, match=r"Fill 2 \(f12.1\)"):
        report_fills(clm, mixed, ADA)
    page = fills_of(clm, world.model_id, FillQuery(limit=1))
    assert [(each.id, each.symbol, each.reported_by) for each in page.items] == [
        ("f13.1", version.symbol, "ada")
    ]
    rest = fills_of(clm, world.model_id, FillQuery(limit=1, after=page.next))
    assert ([each.id for each in rest.items], rest.next) == (["f12.1"], None)


def test_a_fill_that_cannot_be_true_is_refused_by_name_with_the_whole_report(
    world: World, version: ModelVersion
) -> None:
    clm = world.services(NOW)
    refused: list[tuple[float, dict[str, object], type[CLMError], str]] = [
        (12.1, {"version": "v20000101_000000"}, NotFound, "v20000101_000000"),
        (12.1, {"symbol": "DOGEUSD"}, FillRefused, "DOGEUSD is no market of"),
        (10.4, {}, FillRefused, "before the promotion of"),
        (NOW + 0.1, {}, FillRefused, "is in the future"),
        (NOW + 0.0001, {}, BarNotStored, "again after the close and `clm data update`"),
        (12.1, {"price": 1.0}, FillRefused, "its `price`, 1, is more than 0.5% outside the bar"),
    ]
    for day, changed, error, message in refused:
        wrong = fill(world, version, day, **{"id": "wrong"} | changed)
        with pytest.raises(error, match=r"^Fill 2 \(wrong\): .*" + message):
            report_fills(clm, [fill(world, version, 12.1), wrong], ADA)
    assert fills_of(clm, world.model_id, FillQuery()).items == ()
    edge = fill(world, version, 12.1, price=float(world.bars.high[12]) * 1.0049)
    assert report_fills(clm, [edge], ADA).new == 1


def test_a_version_no_longer_in_production_has_one_bar_to_close_its_position(
    world: World, version: ModelVersion
) -> None:
    never = world.register(15)
    world.promote(world.register(20), 20.5)
    clm = world.services(NOW)
    assert report_fills(clm, [fill(world, version, 20.9), fill(world, version, 21.9)], ADA).new == 2
    with pytest.raises(FillRefused, match=r"was traded until .* lies after the bar that followed"):
        report_fills(clm, [fill(world, version, 22.1)], ADA)
    with pytest.raises(FillRefused, match="was never in production or in an allocation"):
        report_fills(clm, [fill(world, never, 16.1)], ADA)


def test_a_time_without_a_bar_is_refused(world: World) -> None:
    early = world.register(-3)
    world.promote(early, -2.5)
    with pytest.raises(FillRefused, match=r"has no bar at .*, and bars after that time"):
        report_fills(world.services(NOW), [fill(world, early, -0.9)], ADA)


def test_figures_stand_beside_the_paper_record(world: World, version: ModelVersion) -> None:
    clm = world.services(NOW)
    assert fill_figures(clm, world.model_id) == ()
    report_fills(clm, [fill(world, version, 11.1, 1.0, price=float(world.bars.open[11]) * 1.001)], ADA)
    [figures] = fill_figures(clm, world.model_id)
    assert (figures.fills, figures.turnover, figures.until) == (1, 1.0, world.when(NOW - 2))
    fee = figures.modelled.fee_bps / 10_000
    units = 1.0 / (world.bars.open[11] * 1.001)
    assert figures.realised_return == pytest.approx(units * world.bars.close[NOW - 2] - 1.0 - fee)
    market = clm.version_terms(version, Calendar.ALWAYS)
    positions = np.where(np.arange(NOW) >= 10, world.foresight[:NOW], 0.0)[10:]
    paper = market.backtest(world.bars[10:NOW], positions)
    assert figures.paper_return == pytest.approx(np.prod(1.0 + paper.returns[:-1]) - 1.0)
    assert figures.paper_turnover == pytest.approx(paper.turnover[:-1].sum())
    assert figures.paper_position == pytest.approx(paper.exposure[-2])
    assert figures.measured.reason == "0 of 30 bars with fills in the last 90 days"
    assert "comparisons pay modelled costs: 0 of 30 bars" in figures.sentence
    assert f"position {figures.position:+.3f} against {figures.paper_position:+.3f}" in figures.sentence


def test_a_bar_with_a_fill_has_the_return_of_the_account(world: World, version: ModelVersion) -> None:
    clm = world.services(NOW)
    assert realised_bars(clm, version).versions == ()
    report_fills(clm, [fill(world, version, 12.1, 0.5), fill(world, version, 14.1, -0.5)], ADA)
    bars = realised_bars(clm, version)
    opened = world.bars.open
    close = world.bars.close
    assert (bars.time.tolist(), bars.versions) == (
        world.bars.time[[12, 14]].tolist(),
        (version.version, version.version),
    )
    [figures] = fill_figures(clm, world.model_id)
    fee = figures.modelled.fee_bps / 10_000
    assert bars.returns[0] == pytest.approx(0.5 * (close[12] / opened[12] - 1.0 - fee))
    # most was sold at the open: the bar has the way from the close before
    assert bars.returns[1] == pytest.approx(0.5 * (opened[14] / close[13] - 1.0 - fee), abs=0.002)


def test_both_sides_of_a_comparison_pay_the_costs_that_enough_fills_measure(
    world: World, version: ModelVersion
) -> None:
    clm = world.services(NOW)
    # a position turned over each bar, and one that is held
    world.follow(busy := world.register(8), (-1.0) ** np.arange(NOW), NOW)
    stints = [Stint(busy, busy.created_at)], [Stint(version, version.created_at)]
    second = world.register(12)
    world.follow(second, np.ones(NOW), NOW)
    world.promote(second, 13)
    before = compare_in_shadow(clm, *stints, world.when(11))
    learnt = learning_value(clm, world.model_id)
    fills = [
        fill(
            world,
            second,
            day + 0.1,
            (-1.0) ** day,
            price=float(world.bars.open[day] * (1.0 + (-1.0) ** day * (40 + (-1) ** (day // 2)) / 10_000)),
            fee_bps=4.0,
        )
        for day in range(100, 140)
    ]
    resting = fill(world, second, 140.1, price=float(world.bars.low[140]), resting=True)
    report_fills(clm, [*fills, resting], ADA)
    [figures] = fill_figures(clm, world.model_id)
    measured = figures.measured
    assert (figures.fills, measured.fills, measured.bars, measured.reason) == (41, 40, 40, None)
    assert measured.slippage_bps is not None
    assert 39.0 < measured.slippage_bps.low < 40.0 < measured.slippage_bps.high < 41.0
    assert measured.costs == Costs(fee_bps=4.0, slippage_bps=measured.slippage_bps.value)
    assert "comparisons pay measured costs" in figures.sentence
    listed = fills_of(clm, world.model_id, FillQuery(limit=2)).items
    assert (listed[0].slippage_bps, listed[1].slippage_bps) == (None, pytest.approx(40.0, abs=1.01))

    after = compare_in_shadow(clm, *stints, world.when(11))
    assert after.n == before.n > 0
    # the challenger turns its position over more often
    assert after.first + after.total / after.n < before.first + before.total / before.n
    now = learning_value(clm, world.model_id)
    assert learnt is not None
    assert now is not None
    # production trades once, the frozen champion often
    assert (now.production_return or 0.0) < (learnt.production_return or 0.0)
    assert (now.frozen_return or 0.0) < (learnt.frozen_return or 0.0) - 0.05


def test_a_wide_interval_and_old_fills_leave_the_modelled_costs(world: World, version: ModelVersion) -> None:
    clm = world.services(NOW)
    fills = [
        fill(world, version, day + 0.1, (-1.0) ** day, price=float(world.bars.close[day]))
        for day in range(80, NOW)
    ]
    report_fills(clm, fills, ADA)
    [figures] = fill_figures(clm, world.model_id)
    assert figures.measured.costs is None
    assert "the interval of the slippage is +-" in str(figures.measured.reason)
    later = world.when(NOW) + timedelta(days=120)
    [old] = fill_figures(replace(clm, clock=lambda: later), world.model_id)
    assert (old.measured.fills, old.measured.slippage_bps) == (0, None)
