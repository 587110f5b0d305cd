"""Scheduled fetch of bars from a local exchange, market by market."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from exchanges import NOW, START, Binance, kline, serving

from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import NotEnoughBars, UnknownSeries
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.pools import PoolSettings
from clm_core.domain.universe import Market
from clm_core.market.sources import MarketData
from clm_core.operations import ingest
from clm_core.operations.ingest import IngestReport
from clm_core.retraining import jobs, steps
from clm_core.retraining.requests import require_valid
from clm_core.retraining.window import evidence_window, require_trainable_job, window_of_job
from clm_core.services import Services


@pytest.fixture
def binance() -> Binance:
    return Binance()


@pytest.fixture
def clm(services: Services, binance: Binance, tmp_path: Path) -> Iterator[Services]:
    """Services with a fetched and an imported market, and an empty store."""
    with serving(binance) as url:
        universe = (
            Market(symbol="BTCUSDT", exchange="binance", exchange_url=url, dataset_span_days=1),
            Market(symbol="EURUSD"),
        )
        settings = services.settings.model_copy(update={"universe": universe})
        yield replace(
            services, settings=settings, open_market=lambda: MarketData(tmp_path), clock=lambda: NOW
        )


def at(clm: Services, hours: float) -> Services:
    return replace(clm, clock=lambda: START + timedelta(hours=hours))


def test_a_market_is_filled_first_and_then_gets_the_bars_closed_since(clm: Services) -> None:
    [first] = ingest.run(at(clm, 12.5)).markets
    assert (first.symbol, first.new_bars, first.newest_bar) == ("BTCUSDT", 12, START + timedelta(hours=11))
    assert [market.new_bars for market in ingest.run(at(clm, 12.6)).markets] == [0]
    report = ingest.run(at(clm, 25.5))
    assert [(market.new_bars, market.bars) for market in report.markets] == [(13, 25)]
    assert report.headline == "Markets up to date: 1, with 13 new bars."


def test_a_market_that_cannot_be_fetched_is_alerted_and_leaves_the_rest_to_run(
    clm: Services, binance: Binance
) -> None:
    known, by_hand = clm.settings.universe
    unknown = known.model_copy(update={"symbol": "NOSUCHCOIN"})
    settings = clm.settings.model_copy(update={"universe": (unknown, known, by_hand)})
    report = ingest.run(replace(clm, settings=settings))
    assert [market.symbol for market in report.markets] == ["BTCUSDT"]
    [problem] = report.problems
    assert problem.startswith("NOSUCHCOIN 1h: ")
    failing = [alert.subject for alert in clm.alerts.lasting(AlertKind.MAINTENANCE_FAILING)]
    assert "fetch" in failing
    ingest.run(clm)
    failing = [alert.subject for alert in clm.alerts.lasting(AlertKind.MAINTENANCE_FAILING)]
    assert "fetch" not in failing


def test_the_ranks_of_a_pool_follow_the_bars_and_an_unknown_feature_is_a_problem(
    clm: Services, tmp_path: Path
) -> None:
    ranked = {"PAIR": PoolSettings(symbols=("BTCUSDT", "ETHUSDT"), ranks=("log_return_1", "no_such_feature"))}
    ingest.run(at(clm, 12.5))
    clm = replace(clm, settings=clm.settings.model_copy(update={"pools": ranked}))

    def import_other(hours: float) -> Services:
        now = at(clm, hours)
        bars = now.market.bars("BTCUSDT", "1h", closed_by=now.clock())
        bars.to_frame().to_csv(tmp_path / "eth.csv", index_label="timestamp")
        now.market.import_file(tmp_path / "eth.csv", "ETHUSDT", "1h", now=now.clock())
        return now

    reports = [ingest.run(import_other(12.5)), ingest.run(at(clm, 13.5)), ingest.run(import_other(13.6))]
    # a bar of one member alone is not ranked
    assert [[each.new_values for each in report.ranks] for report in reports] == [[22], [0], [2]]
    assert "PAIR: 2 new ranks of log_return_1" in reports[-1].summary_lines()
    [problem] = reports[-1].problems
    assert problem.startswith("ranks of no_such_feature in PAIR: ")


def opens(hour: int) -> int:
    return int((START + timedelta(hours=hour)).timestamp() * 1000)


def test_a_correction_of_the_exchange_is_taken_and_reported(clm: Services, binance: Binance) -> None:
    ingest.run(at(clm, 12.1))
    binance.bars[opens(11)][5] = "12.60000000"
    report = ingest.run(at(clm, 13.1))
    [market] = report.markets
    assert (market.new_bars, market.corrected, market.waiting, report.problems) == (1, 1, 0, ())
    assert report.headline == "Markets up to date: 1, with 1 new bars; 1 bars corrected by the source."
    assert report.summary_lines() == [
        "BTCUSDT 1h: 1 corrected: only the volume differs, 2024-01-01 11:00 volume 12.5 -> 12.6"
    ]
    assert "| BTCUSDT 1h | binance | 1 | 1 | 2024-01-01 12:00 | 0 | 13 |" in report.page()
    assert IngestReport.model_validate_json(report.model_dump_json()) == report
    assert [each.corrected for each in ingest.run(at(clm, 14.1)).markets] == [0]


def test_a_difference_for_a_person_is_alerted_once_and_the_feed_goes_on(
    clm: Services, binance: Binance
) -> None:
    ingest.run(at(clm, 12.1))
    binance.bars[opens(11)] = kline(opens(11), offset=2000)
    reports = [ingest.run(at(clm, hour + 0.1)) for hour in (13, 14, 20)]
    assert [market.new_bars for report in reports for market in report.markets] == [1, 1, 6]
    assert reports[0].headline == (
        "Markets up to date: 1, with 1 new bars; 1 with bars that differ from the source's."
    )
    [problem] = {problem for report in reports for problem in report.problems}
    assert "clm data replace BTCUSDT 1h --exchange binance --base-url http://127.0.0.1:" in problem
    [alert] = [each for each in clm.alerts.lasting() if each.subject == "fetch"]
    assert alert.at == START + timedelta(hours=13.1)
    assert "--from 2024-01-01T11:00 --to 2024-01-01T11:00" in alert.message
    clm.market.keep_stored("BTCUSDT", "1h")
    assert ingest.run(at(clm, 21.1)).problems == ()
    assert "fetch" not in [each.subject for each in clm.alerts.lasting()]


def test_a_job_of_a_market_without_bars_fetches_them_first(clm: Services) -> None:
    later = at(clm, 12.5)
    request = RetrainRequest(model_type="lightgbm", symbol="BTC/USDT", requested_by="tests")
    require_valid(later.settings.model_copy(update={"home": Path("nowhere")}), request, later.clock())
    assert evidence_window(later, request) is None
    job = later.ledger.create_job(jobs.new_job(later, request))
    assert (job.symbol, job.data_snapshot, window_of_job(later, job)) == ("BTCUSDT", "", None)
    with jobs.running(later, job) as lease:
        ready = ingest.fetch_first(later, lease, job)
        assert steps.fetch_bars(later, ready).end == START + timedelta(hours=11)
        assert ingest.fetch_first(later, lease, ready) == ready
    assert later.ledger.job(job.id).data_snapshot == ready.data_snapshot
    with pytest.raises(NotEnoughBars, match="BTCUSDT 1h cannot be trained: A fit of lightgbm needs"):
        require_trainable_job(later, jobs.new_job(later, request))
    with pytest.raises(UnknownSeries):
        jobs.new_job(later, request.model_copy(update={"symbol": "ETHUSDT"}))


def test_the_headline_says_how_to_name_an_exchange_if_no_market_does(clm: Services) -> None:
    settings = clm.settings.model_copy(update={"universe": (Market(symbol="EURUSD"),)})
    report = ingest.run(replace(clm, settings=settings))
    assert (report.markets, report.problems) == ((), ())
    assert 'exchange = "binance"' in report.headline
