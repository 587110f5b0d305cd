"""A pool from the request to serving: one model over three made-up markets, on real stores."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import promoting
import pytest
from mlflow.exceptions import MlflowException
from panels import a_market
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.decisions import explanation
from clm_core.domain import verdict_text
from clm_core.domain.actors import Actor
from clm_core.domain.errors import (
    CLMError,
    EvidenceMissing,
    FeatureMismatch,
    ModelError,
    PoolRefused,
    UnknownSeries,
)
from clm_core.domain.evaluations import Verdict
from clm_core.domain.evolution import EvolveRequest
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.paper import PaperQuery
from clm_core.domain.pools import PoolSettings
from clm_core.domain.promotions import Succession
from clm_core.domain.terms import CostSettings, MarketSettings
from clm_core.domain.tuning import TuneRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role, RuleFamily
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.ledger.alerts import AlertStore
from clm_core.lifecycle import pool_members, shadow, watch
from clm_core.lifecycle.attribution import attribute_version
from clm_core.lifecycle.live import live_section
from clm_core.lifecycle.paper import paper_record
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry_store import CarryStore, PaymentKind
from clm_core.market.panel import Panel
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.models.contract import Model
from clm_core.registry.promotion import Promotions
from clm_core.retraining import jobs, pools, steps
from clm_core.retraining.champion import champion_of
from clm_core.retraining.recorded_numbers import judge_recorded_numbers
from clm_core.retraining.reproduce import reproduce
from clm_core.retraining.results import BacktestEvaluation
from clm_core.retraining.shadow_tracks import Stint, markets_since, run_of
from clm_core.retraining.training import TrainingResult
from clm_core.search.request import search_fields
from clm_core.services import Services
from clm_core.serving import load

ADMIN = Actor(name="ada", role=Role.ADMIN)
SYMBOLS = ("AAAUSD", "BBBUSD", "CCCUSD")
BARS = 2400
NEW = 500
QUICK = {"rounds": 20, "horizon": 6, "threshold": 0.0, "learning_rate": 0.2, "min_child_weight": 5.0}
POOL = RetrainRequest(
    model_type=ModelType.XGBOOST,
    symbol="TRIO",
    symbols=SYMBOLS,
    dataset_span_days=90,
    training_params=QUICK,
    seed=5,
    requested_by="tests",
)


@dataclass(frozen=True)
class Retrained:
    version: ModelVersion
    panel: Panel
    trained: TrainingResult
    evaluation: BacktestEvaluation
    verdict: Verdict
    report: str


def market_of(folder: Path, bars: int = BARS - NEW, symbols: Sequence[str] = SYMBOLS) -> MarketData:
    store = SeriesStore(folder / "data")
    for symbol in symbols:
        number = SYMBOLS.index(symbol)
        whole = a_market(symbol, BARS, 10 + number, momentum=0.1)[:bars]
        store.add(whole, "tests", whole.end.to_pydatetime() + timedelta(hours=1))
    return MarketData(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    market_of(tmp_path)
    return tmp_path


@pytest.fixture
def own(clm: Services, engine: Engine, folder: Path) -> Services:
    """Services with a separate ledger and the made-up markets."""
    return replace(
        clm,
        settings=clm.settings.model_copy(update={"walk_forward": WalkForwardPlan(folds=2)}),
        promotions=Promotions(clm.ledger, clm.registry, None),
        alerts=AlertStore(engine),
        open_market=lambda: MarketData(folder),
    )


def retrain(services: Services, request: RetrainRequest = POOL) -> Retrained:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        panel = steps.fetch_bars(services, job)
        assert isinstance(panel, Panel)
        trained = steps.train(services, job, panel)
        version = steps.register(services, lease, job, panel, trained)
        evaluation = steps.evaluate_out_of_sample(services, lease, job, panel, trained)
        verdict = steps.judge(services, lease, version, evaluation)
        files = steps.report(services, job, version, panel, trained, evaluation, verdict)
    return Retrained(version, panel, trained, evaluation, verdict, files.html.read_text())


@pytest.fixture(scope="module")
def clm_of_module(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Services of the session with the made-up markets, of which one is dearer than the others."""
    folder = tmp_path_factory.mktemp("markets")
    market_of(folder)
    dear = MarketSettings(costs=CostSettings(fee_bps=50.0, slippage_bps=2.0))
    changes = {"markets": {"BBBUSD": dear}, "walk_forward": WalkForwardPlan(folds=2)}
    return replace(
        services,
        settings=services.settings.model_copy(update=changes),
        open_market=lambda: MarketData(folder),
    )


@pytest.fixture(scope="module")
def done(clm_of_module: Services) -> Retrained:
    return retrain(clm_of_module)


def test_a_pool_is_judged_as_a_portfolio_and_by_symbol_under_the_terms_of_each_market(
    clm_of_module: Services, done: Retrained
) -> None:
    services = clm_of_module
    assert done.version.model_id == "xgboost_trio_1h"
    assert done.version.symbol == "TRIO"
    assert [each.symbol for each in done.verdict.by_symbol] == list(SYMBOLS)
    assert [each.sharpe_interval is not None for each in done.verdict.by_symbol] == [
        each.trades > 0 for each in done.verdict.by_symbol
    ]
    stored = services.ledger.evaluation(done.version.model_id, done.version.version)
    assert stored[1].by_symbol == done.verdict.by_symbol
    assert [each.costs.split(" of")[0] for each in done.verdict.by_symbol] == ["5 bps", "50 bps", "5 bps"]
    assert stored[0].fee_bps == 50.0
    assert stored[0].terms is not None
    assert stored[0].terms.members == {each.symbol: each.terms_digest for each in done.verdict.by_symbol}
    returns = np.mean([member.result.returns for member in done.evaluation.members], axis=0)
    np.testing.assert_allclose(done.evaluation.result.returns, returns, rtol=0, atol=1e-15)
    assert sum(each.contribution for each in done.verdict.by_symbol) == pytest.approx(returns.sum())
    assert sum(each.trades for each in done.verdict.by_symbol) == done.evaluation.metrics.trades
    assert [each.name for each in done.verdict.baselines] == ["buy_and_hold", "hold_at_volatility", "trend"]
    rules = {each.name: each for each in done.verdict.rules}
    assert rules.keys() == set(RuleFamily)
    for rule in done.evaluation.rules:
        assert len(rule.result.returns) == len(done.evaluation.bars)
        assert rules[rule.family].trades == rule.metrics.trades
    explained = explanation.page("TRIO", done.verdict, stored[0], None, timedelta(hours=1))
    table = "\n".join(verdict_text.symbol_table(done.verdict))
    for symbol in SYMBOLS:
        assert f"<td>{symbol}</td>" in done.report
        assert f"<td>{symbol}</td>" in explained
        assert "Rule strategies, for information" in explained
        assert f"| {symbol} |" in table
    assert "<th>Symbol</th><th>Entry (UTC)</th>" in done.report
    encoded = done.report.partition('id="trades">')[2].partition("<")[0]
    trades = pd.read_csv(BytesIO(gzip.decompress(base64.b64decode(encoded))))
    listed = trades.groupby("symbol").size().to_dict()
    assert listed == {member.bars.symbol: len(member.result.trades) for member in done.evaluation.members}


def test_recorded_numbers_of_a_pool_are_refused_where_a_payment_of_a_member_was_changed(
    clm_of_module: Services, done: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = clm_of_module
    job = services.ledger.job(done.version.training_job_id)
    result, verdict = services.ledger.evaluation(done.version.model_id, done.version.version)

    def judge() -> Verdict:
        return judge_recorded_numbers(services, done.version, job, result, verdict)

    assert judge().checks
    payments = CarryStore(tmp_path / "carry", tmp_path / "quarantine")
    rates = tmp_path / "funding.csv"
    rates.write_text(f"time,rate\n{result.period_end:%Y-%m-%dT%H:00:00Z},0.0001\n")
    payments.add(PaymentKind.FUNDING, rates, SYMBOLS[2], now=services.clock())
    monkeypatch.setattr(services.market, "payments", payments)
    with pytest.raises(EvidenceMissing, match="funding rates or dividends of the judged period"):
        judge()


def test_every_look_at_a_members_market_counts_there_and_once_for_the_pool(own: Services) -> None:
    retrain(own)
    trials = own.ledger.trials
    assert [len(trials.records(symbol, "1h")) for symbol in ("TRIO", *SYMBOLS)] == [1, 1, 1, 1]
    assert len(own.ledger.trials.records("TRIO", "1h", members=SYMBOLS)) == 1
    # another pool of the same markets begins with the looks already taken
    assert len(own.ledger.trials.records("OTHER", "1h", members=SYMBOLS[:2])) == 2
    single = RetrainRequest(
        model_type=ModelType.XGBOOST,
        symbol="AAAUSD",
        dataset_span_days=90,
        training_params=QUICK,
        requested_by="tests",
    )
    job = jobs.open_job(own, single)
    with jobs.running(own, job) as lease:
        bars = steps.fetch_bars(own, job)
        trained = steps.train(own, job, bars)
        steps.register(own, lease, job, bars, trained)
        steps.evaluate_out_of_sample(own, lease, job, bars, trained)
    assert len(trials.records("AAAUSD", "1h")) == 2
    assert len(own.ledger.trials.records("TRIO", "1h", members=SYMBOLS)) == 2


def test_a_served_pool_answers_for_its_members_and_refuses_other_symbols(
    services: Services, done: Retrained
) -> None:
    label = done.version.version
    promoting.promote(services, done.version.model_id, label, ADMIN, "t", services.clock(), force=True)
    served = load(done.version.model_id, registry=services.registry, ledger=services.ledger)
    needed = served.bars_needed
    assert needed is not None
    for bars in done.panel:
        whole = served.positions(bars)
        assert whole.tobytes() == served.model.positions(bars).tobytes()
        assert served.positions(bars[-needed:])[-1] == whole[-1]
    with pytest.raises(FeatureMismatch, match="TRIO has no member DDDUSD: give bars of one of AAAUSD, BBB"):
        served.positions(replace(done.panel.members[0], symbol="DDDUSD"))


def test_mlflow_answers_for_the_symbol_named_and_says_when_none_is(
    services: Services, done: Retrained
) -> None:
    assert services.registry._fluent
    loaded = mlflow.pyfunc.load_model(done.version.model_path)
    model = services.registry.load(done.version.model_path, done.version.bundle_digest)
    bars = done.panel["BBBUSD"]
    answers = loaded.predict(bars.to_frame(), params={"symbol": "BBB/USD"})
    assert answers["position"].to_numpy().tobytes() == model.positions(bars).tobytes()
    with pytest.raises(MlflowException, match="TRIO is a pool of AAAUSD, BBBUSD, CCCUSD: name the symbol"):
        loaded.predict(bars.to_frame())
    with pytest.raises(MlflowException, match="no member DDDUSD: give bars of one of AAAUSD") as refused:
        loaded.predict(bars.to_frame(), params={"symbol": "DDDUSD"})
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_pool_is_reproduced_bar_by_bar_over_all_members(clm_of_module: Services, done: Retrained) -> None:
    again = reproduce(clm_of_module, done.version)
    assert (again.positions.bars, again.positions.differing) == (done.panel.rows, 0)
    assert again.differences == ()


def test_a_champion_is_compared_with_the_challenger_as_a_portfolio(own: Services, folder: Path) -> None:
    first = retrain(own)
    promoting.promote(own, first.version.model_id, first.version.version, ADMIN, "t", own.clock(), force=True)
    market_of(folder, BARS)
    later = replace(
        own,
        clock=lambda: own.clock() + timedelta(seconds=5),
        settings=own.settings.model_copy(
            update={"walk_forward": WalkForwardPlan(folds=2, first_train_fraction=0.6)}
        ),
    )
    second = retrain(later, POOL.model_copy(update={"dataset_span_days": 100}))
    champion = champion_of(own, second.version)
    assert champion is not None
    against = pools.compare_with_champion(
        own.ledger, own.market, champion, second.evaluation, own.settings.execution.rules
    )
    assert against.champion == first.version.version
    assert against.record.n == NEW
    assert second.version.parent_version == first.version.version


def test_the_record_of_a_pool_grows_by_the_bars_its_version_was_followed_on(
    own: Services, folder: Path
) -> None:
    first = retrain(own)
    market_of(folder, BARS)
    second = retrain(replace(own, clock=lambda: own.clock() + timedelta(seconds=5)))
    assert second.version.recipe_digest == first.version.recipe_digest
    record = second.verdict.record
    assert record is not None
    assert (record.forward_bars, record.versions) == (NEW, 1)
    assert len(second.evaluation.bars) == len(first.evaluation.bars) + NEW
    model = own.registry.load(first.version.model_path, first.version.bundle_digest)
    for member, then, now in zip(
        second.panel, first.evaluation.runs.markets, second.evaluation.runs.markets, strict=True
    ):
        assert np.array_equal(now.positions[:, :-NEW], then.positions)
        followed = model.member(member.symbol).positions(member)[-NEW:]
        assert np.abs(followed).max() > 0
        assert np.array_equal(now.positions[0, -NEW:], followed)

    # the protection of the refresh follows the version before on the bars that it served
    begun = (first.panel.members[0].end.to_pydatetime() + timedelta(hours=1), own.clock())
    refreshed = Succession((first.version.version, second.version.version), begun, None)
    _, served = watch._measure_version(own, second.version, own.clock(), refreshed)
    assert served.recipe is not None
    assert len(served.recipe.bars) == NEW
    assert np.abs(served.recipe.result.exposure).max() > 0


def test_the_watch_measures_a_pool_by_symbol_and_requests_a_retrain_of_the_pool(
    own: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrain(own)
    promoted = first.panel.members[0].end.to_pydatetime() + timedelta(hours=1)
    promoting.promote(own, first.version.model_id, first.version.version, ADMIN, "t", promoted, force=True)
    market_of(folder, BARS)
    computed = list[str]()
    positions_from = pool_members.positions_from

    def counted(model: Model, bars: Bars, row: int) -> Floats:
        computed.append(bars.symbol)
        return positions_from(model, bars, row)

    monkeypatch.setattr(pool_members, "positions_from", counted)
    watched = watch.run(own)
    assert watched.problems == ()
    assert computed == list(SYMBOLS)
    [production] = watched.models
    assert production.new_bars == NEW
    assert [(each.symbol, each.performance.bars) for each in production.by_symbol] == [
        (symbol, NEW) for symbol in SYMBOLS
    ]
    assert production.performance.bars == NEW
    for answer in production.asked:
        assert answer.request.training.symbols == SYMBOLS
    assert any(symbol in line for line in watched.summary_lines() for symbol in SYMBOLS)
    for each in production.by_symbol:
        assert each.error_drift is not None
        assert each.error_drift.observations > NEW / QUICK["horizon"] - 5
    protection = production.protection
    assert protection is not None
    assert protection.bars == NEW
    assert protection.tail_threshold is not None
    assert protection.tail_statistic is not None


def test_shadow_records_the_positions_of_every_member(own: Services, folder: Path) -> None:
    done = retrain(own)
    registered = done.panel.members[0].end.to_pydatetime() + timedelta(hours=1)
    put_into_shadow(own, done.version, registered)
    market_of(folder, BARS)
    report = shadow.run(own)
    assert report.problems == ()
    [shadowed] = report.versions
    assert shadowed.new == NEW * 3
    assert [(each.symbol, each.figures.bars) for each in shadowed.by_symbol] == [
        (symbol, NEW) for symbol in SYMBOLS
    ]
    assert shadowed.figures.bars == NEW
    followed = own.ledger.version(done.version.model_id, done.version.version)
    whole = paper_record(own, followed, PaperQuery(limit=1000))
    returns = np.array([each.net_return for each in whole.items])
    assert (whole.bars, whole.symbol) == (NEW, "TRIO")
    assert np.prod(1.0 + returns) - 1.0 == pytest.approx(shadowed.figures.total_return, abs=1e-12)
    member = paper_record(own, followed, PaperQuery(limit=1000, symbol=SYMBOLS[1]))
    assert (member.bars, member.symbol) == (NEW, SYMBOLS[1])
    assert shadow.run(own).versions[0].new == 0


def test_shadow_compares_the_portfolios_of_a_pool_and_its_champion_on_the_bars_of_both(
    own: Services, folder: Path
) -> None:
    champion = retrain(own).version
    promoting.promote(own, champion.model_id, champion.version, ADMIN, "t", own.clock(), force=True)
    later = replace(own, clock=lambda: own.clock() + timedelta(seconds=5))
    other = {**QUICK, "horizon": 24, "execution.stop_loss": 0.01}
    done = retrain(later, POOL.model_copy(update={"training_params": other}))
    registered = done.panel.members[0].end.to_pydatetime() + timedelta(hours=1)
    put_into_shadow(own, done.version, registered)
    # the champion went into production 100 bars later, and one member has had no bar since
    put_into_shadow(own, champion, registered + timedelta(hours=100), "production")
    market_of(folder, BARS, SYMBOLS[:2])
    report = shadow.run(own)
    assert report.problems == ()
    [serving, shadowed] = report.versions
    assert (serving.version, serving.figures.bars) == (champion.version, NEW - 100)
    assert [each.figures.bars for each in shadowed.by_symbol] == [NEW, NEW, 0]
    against = shadowed.against
    assert against is not None
    assert against.champion == champion.version
    for version, figures in ((done.version, against.ours), (champion, against.theirs)):
        returns = portfolio_returns(own, version, NEW - 100)
        assert figures.bars == NEW - 100
        assert figures.total_return == pytest.approx(np.prod(1 + returns) - 1, abs=1e-12)
    assert against.ours.total_return != against.theirs.total_return
    assert against.difference is not None
    assert champion.version in " ".join(report.summary_lines())

    stored = own.ledger.version(done.version.model_id, done.version.version)
    attributed = attribute_version(own, stored).values
    whole = run_of(own, [Stint(stored, registered)], markets_since(own, stored, registered))
    assert whole is not None
    assert attributed["total"] == pytest.approx(np.prod(1.0 + whole.returns) - 1.0, abs=1e-12)
    by_symbol = {row["name"]: row["profit"] for row in attributed["symbol"]["rows"]}
    assert set(by_symbol) == set(SYMBOLS[:2])
    assert sum(by_symbol.values()) == pytest.approx(attributed["total"], abs=1e-9)
    assert live_section(own, stored).values["cone"] is not None


def portfolio_returns(services: Services, version: ModelVersion, count: int) -> Floats:
    """Mean return of the members on the newest bars, starting flat; a member without new bars earns 0."""
    model = services.registry.load(version.model_path, version.bundle_digest)
    total = np.zeros(count)
    for symbol in SYMBOLS[:2]:
        bars = services.market.bars(symbol, "1h", closed_by=services.clock())
        market = services.version_terms(version, bars.calendar, symbol)
        total += market.backtest(bars[-count:], model.positions(bars)[-count:]).returns
    return total / len(SYMBOLS)


@pytest.mark.parametrize("search", [TuneRequest, EvolveRequest], ids=["tune", "evolve"])
@pytest.mark.parametrize("known_by", ["settings", "job"])
def test_a_search_on_a_pool_is_refused_with_the_way_to_go(
    search: type[TuneRequest] | type[EvolveRequest], known_by: str, own: Services
) -> None:
    if known_by == "job":
        jobs.open_job(own, POOL)
    else:
        settings = own.settings.model_copy(update={"pools": {"TRIO": PoolSettings(symbols=SYMBOLS)}})
        own = replace(own, settings=settings)
    request = search(model_type=ModelType.XGBOOST, symbol="trio", requested_by="tests")
    with pytest.raises(PoolRefused, match=r"TRIO is a pool of AAAUSD.*search with --symbol AAAUSD, then"):
        search_fields(request, {}, own)


@pytest.mark.parametrize("command", ["tune", "evolve"])
def test_a_search_explains_why_there_is_no_option_symbols(command: str) -> None:
    arguments = [command, "--model", "xgboost", "--symbols", "AAAUSD,BBBUSD"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "a search runs on one market" in " ".join(result.output.split()).replace("│ ", "")


def put_into_shadow(
    services: Services, version: ModelVersion, registered: datetime, status: str = "shadow"
) -> None:
    """The version as one registered at an earlier moment, with an inconclusive verdict."""
    with services.ledger._engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE model_versions SET created_at = :at, status = :status "
                "WHERE model_id = :id AND version = :version"
            ),
            {"at": registered, "status": status, "id": version.model_id, "version": version.version},
        )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"symbols": ("AAAUSD", "ZZZUSD")}, UnknownSeries, "there is no series ZZZUSD 1h"),
        (
            {"symbol": "CCCUSD", "symbols": SYMBOLS[:2]},
            PoolRefused,
            "CCCUSD is the symbol of a stored market",
        ),
        (
            {"model_type": ModelType.NHITS, "training_params": {}},
            ModelError,
            "choose one of xgboost, lightgbm",
        ),
        ({"symbols": ("AAAUSD", "EURUSD")}, CLMError, "members of a pool share the calendar"),
    ],
    ids=["unknown member", "named like a market", "kind without pools", "other calendar"],
)
def test_a_request_that_cannot_be_a_pool_is_refused_before_any_job(
    own: Services, changes: dict[str, Any], error: type[CLMError], message: str
) -> None:
    with pytest.raises(error, match=message):
        jobs.new_job(own, POOL.model_copy(update=changes))


def test_a_pools_name_stands_for_one_set_of_symbols(own: Services) -> None:
    jobs.open_job(own, POOL)
    with pytest.raises(PoolRefused, match="TRIO has the members AAAUSD, BBBUSD, CCCUSD, not AAAUSD, BBBUSD"):
        jobs.new_job(own, POOL.model_copy(update={"symbols": SYMBOLS[:2]}))
    again = jobs.new_job(own, POOL.model_copy(update={"symbols": SYMBOLS[::-1]}))
    assert again.symbols == SYMBOLS
    assert jobs.new_job(own, POOL.model_copy(update={"symbols": ()})).symbols == SYMBOLS


def test_a_request_may_name_a_pool_of_the_settings(own: Services) -> None:
    settings = own.settings.model_copy(update={"pools": {"DUO": PoolSettings(symbols=SYMBOLS[:2])}})
    request = POOL.model_copy(update={"symbol": "duo", "symbols": ()})
    job = jobs.new_job(replace(own, settings=settings), request)
    assert (job.symbol, job.symbols, len(job.data_snapshots)) == ("DUO", SYMBOLS[:2], 2)


def test_a_member_without_bars_in_the_span_is_named(own: Services, folder: Path) -> None:
    old = a_market("OLDUSD", 100, 9)
    SeriesStore(folder / "data").add(old, "tests", old.end.to_pydatetime() + timedelta(hours=1))
    with pytest.raises(UnknownSeries, match="OLDUSD has no bar in the newest 30 days of the pool TRIO"):
        jobs.new_job(own, POOL.model_copy(update={"symbols": ("AAAUSD", "OLDUSD"), "dataset_span_days": 30}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--symbols", "AAAUSD,BBBUSD"], "a pool needs --symbols and --pool"),
        (["--pool", "DUO"], "a pool needs --symbols and --pool"),
        (["--symbols", "A,B", "--pool", "D", "--symbol", "A"], "--symbol names one market"),
        (["--symbols", "AAAUSD", "--pool", "DUO"], "at least 2 symbols"),
        (["--symbols", "AAAUSD,aaa/usd", "--pool", "DUO"], "AAAUSD is named twice"),
        (["--symbols", "AAAUSD,BBBUSD", "--pool", "aaausd"], "aaausd is a member of the pool"),
        ([], "name a market with --symbol"),
    ],
    ids=["no name", "no symbols", "both", "one symbol", "twice", "named like a member", "nothing"],
)
def test_the_command_explains_how_a_pool_is_named(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["retrain", "--model", "xgboost", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split()).replace("│ ", "")
