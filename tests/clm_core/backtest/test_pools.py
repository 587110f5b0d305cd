"""Walk-forward of a pool by time, and its equal-risk portfolio."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panels import HOUR, a_market, a_panel

from clm_core.backtest import pools
from clm_core.backtest.engine import backtest
from clm_core.backtest.results import Backtest, PoolTrades
from clm_core.domain.costs import Costs
from clm_core.domain.errors import LookAhead
from clm_core.domain.execution import Execution
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import other_futures
from clm_core.market.panel import Panel
from clm_core.models.contract import Model, Progress, TrainedOn

PLAN = WalkForwardPlan(folds=3, embargo_bars=5, first_train_fraction=0.4)
FREE = Costs(fee_bps=0.0, slippage_bps=0.0)


@dataclass(frozen=True, eq=False)
class Follower:
    """View of a model: long where the last return exceeds the mean return of all members in the training."""

    trained_on: TrainedOn
    mean: float
    model_type = ModelType.XGBOOST
    train_metrics: dict[str, float] = field(default_factory=dict)
    learning_curve: tuple[float, ...] = ()
    bars_needed = 2

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        return np.where(np.diff(np.log(bars.close), prepend=np.log(bars.close[0])) > self.mean, 1.0, -1.0)

    def forecast(self, bars: Bars) -> Floats:
        return np.full(len(bars), self.mean)

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError


@dataclass
class Recorder:
    """Recipe of followers, with a record of the panels fitted."""

    panels: list[Panel] = field(default_factory=list)
    model_type = ModelType.XGBOOST

    def describe(self) -> dict[str, Any]:
        return {}

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> Model:
        raise NotImplementedError

    def fit_panel(self, panel: Panel, seed: int, progress: Progress | None = None) -> tuple[Model, ...]:
        self.panels.append(panel)
        mean = float(np.mean([np.mean(np.diff(np.log(each.close))) for each in panel if len(each) > 1]))
        return tuple(Follower(TrainedOn.of(each, seed), mean) for each in panel)


class Clairvoyant(Follower):
    def positions(self, bars: Bars) -> Floats:
        return np.append(np.sign(np.diff(bars.close)), 0.0)


class ClairvoyantRecipe(Recorder):
    def fit_panel(self, panel: Panel, seed: int, progress: Progress | None = None) -> tuple[Model, ...]:
        return tuple(Clairvoyant(TrainedOn.of(each, seed), 0.0) for each in panel)


def uneven() -> Panel:
    return Panel(
        "POOL",
        (
            a_market("OLD", 600, 1),
            a_market("NEW", 350, 2, first=250),
            a_market("GONE", 500, 3),
            a_market("LATE", 100, 4, first=500),
        ),
    )


def test_every_fold_is_fitted_on_bars_of_all_members_closed_before_the_embargo() -> None:
    panel = uneven()
    recipe = Recorder()
    runs = pools.walk_forward(recipe, panel, PLAN, seed=1, workers=1)
    for fitted, fold in zip(recipe.panels, runs[0].folds, strict=True):
        test_start = panel.time[fold.test.start]
        for member in fitted:
            assert member.time[-1] + HOUR * (1 + PLAN.embargo_bars) <= test_start
            whole = panel[member.symbol].time
            assert member.time[-1] == whole[whole + HOUR * (1 + PLAN.embargo_bars) <= test_start][-1]


def test_a_member_is_flat_in_folds_that_its_bars_did_not_train() -> None:
    panel = uneven()
    runs = dict(zip(panel.symbols, pools.walk_forward(Recorder(), panel, PLAN, seed=1), strict=True))
    starts = [fold.test.start for fold in runs["OLD"].folds]
    assert starts == [240, 360, 480]
    # NEW begins at hour 250: its bars train from the fold of hour 360 on, and none trains on LATE
    assert not runs["NEW"].positions[: 360 - 250].any()
    assert (np.abs(runs["NEW"].positions[360 - 250 :]) == 1.0).all()
    assert not runs["LATE"].positions.any()
    assert (np.abs(runs["GONE"].positions[240:]) == 1.0).all()
    assert not runs["OLD"].positions[:240].any()


def test_changing_any_member_after_a_moment_changes_no_position_up_to_it() -> None:
    panel = a_panel(["AAA", "BBB", "CCC"], 500)
    row = 330
    before = pools.walk_forward(Recorder(), panel, PLAN, seed=1)
    for number, member in enumerate(panel):
        for change, changed in other_futures(member, row):
            if change == "delayed":
                # moves the end of the axis, by which the folds are cut
                continue
            members = (*panel.members[:number], changed, *panel.members[number + 1 :])
            after = pools.walk_forward(Recorder(), replace(panel, members=members), PLAN, seed=1)
            for ours, theirs in zip(before, after, strict=True):
                assert ours.positions[: row + 1].tobytes() == theirs.positions[: row + 1].tobytes(), change


def test_the_portfolio_earns_the_mean_return_and_an_absent_member_nothing() -> None:
    panel = Panel("POOL", (a_market("AAA", 100, 1), a_market("BBB", 60, 2, first=40)))
    results = [(bars, backtest(bars, np.ones(len(bars)), FREE, Execution())) for bars in panel]
    axis = panel.index_bars()
    whole = pools.portfolio(axis, results, 10_000.0)
    one, other = (result.returns for _, result in results)
    assert whole.returns[:40].tolist() == (one[:40] / 2).tolist()
    np.testing.assert_allclose(whole.returns[40:], (one[40:] + other) / 2, rtol=0, atol=1e-15)
    assert whole.equity[-1] == pytest.approx(10_000.0 * np.prod(1.0 + whole.returns))
    assert len(whole.trades) == len(results[0][1].trades) + len(results[1][1].trades)
    entries = dict(zip(whole.trades.exit_price.tolist(), whole.trades.entry_bar.tolist(), strict=True))
    second: Backtest = results[1][1]
    assert entries[second.trades.exit_price[0]] == 40 + second.trades.entry_bar[0]


def test_every_trade_of_a_portfolio_names_its_market() -> None:
    panel = a_panel(("AAAUSD", "BBBUSD"), 40)
    late, early = (np.zeros(40) for _ in range(2))
    late[20:30] = 1.0
    early[5:10] = -1.0
    early[25:28] = 1.0
    results = [
        (bars, backtest(bars, positions, FREE, Execution()))
        for bars, positions in zip(panel, (late, early), strict=True)
    ]
    trades = pools.portfolio(panel.index_bars(), results, 1.0).trades
    assert isinstance(trades, PoolTrades)
    # in the order of the exits
    assert trades.symbol.tolist() == ["BBBUSD", "BBBUSD", "AAAUSD"]
    assert trades.direction.tolist() == [-1, 1, 1]


def test_contributions_add_up_to_the_sum_of_the_portfolios_returns() -> None:
    panel = a_panel(["AAA", "BBB", "CCC"], 200)
    rng = np.random.default_rng(3)
    results = [(bars, backtest(bars, rng.uniform(-1, 1, len(bars)), Costs(), Execution())) for bars in panel]
    whole = pools.portfolio(panel.index_bars(), results, 10_000.0)
    parts: Sequence[float] = [pools.contribution(3, result) for _, result in results]
    assert sum(parts) == pytest.approx(float(whole.returns.sum()), abs=1e-12)


def test_two_members_that_mirror_each_other_leave_the_portfolio_without_risk() -> None:
    bars = a_market("AAA", 300, 5)
    twin = replace(bars, symbol="BBB")
    long = backtest(bars, np.ones(len(bars)), FREE, Execution(rebalance_band=0.0001))
    short = replace(long, returns=-long.returns, exposure=-long.exposure)
    panel = Panel("POOL", (bars, twin))
    whole = pools.portfolio(panel.index_bars(), [(bars, long), (twin, short)], 1.0)
    assert np.abs(whole.returns).max() == 0.0
    assert np.abs(whole.exposure).max() == 0.0


def test_the_leak_test_finds_a_member_that_looks_ahead() -> None:
    panel = a_panel(["AAA", "BBB"], 400)
    recipe = ClairvoyantRecipe()
    with pytest.raises(LookAhead, match="the model's positions for AAA"):
        pools.examine(recipe, pools.fit_pool(recipe, panel, seed=1), panel, seed=1)


def test_the_leak_test_finds_a_recipe_that_earns_on_shuffled_bars() -> None:
    with pytest.raises(LookAhead, match="shuffled returns"):
        pools.examine_learning(ClairvoyantRecipe(), a_panel(["AAA", "BBB"], 400), seed=1)


def test_the_leak_test_accepts_an_honest_pool() -> None:
    panel = uneven()
    recipe = Recorder()
    pools.examine(recipe, pools.fit_pool(recipe, panel, seed=1), panel, seed=1)
