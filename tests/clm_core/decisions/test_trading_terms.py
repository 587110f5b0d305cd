"""Terms of trading by market: the market's own costs, [costs], variables and defaults."""

import logging
from pathlib import Path

import numpy as np
import pytest

from clm_core.decisions.trading_terms import trading_terms
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.errors import SettingsError
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import EvaluationTerms, MarketSettings, TradingTerms
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.ledger.store import Ledger
from clm_core.market.carry import NO_CARRY, Carry, Payments
from clm_core.platform.home_costs import HomeCosts
from clm_core.services import _settle_costs
from clm_core.settings import (
    Settings,
    cost_sources,
    home_cost_sources,
    home_markets,
    load_settings,
)

OWN = "[markets.EURUSD.costs]\nfee_bps = 0.3\nslippage_bps = 0.1\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def terms(symbol: str, calendar: str, carry: Carry = NO_CARRY, is_old_home: bool = False) -> TradingTerms:
    return terms_of(load_settings(), symbol, calendar, carry, is_old_home)


def terms_of(settings: Settings, symbol: str, calendar: str, carry: Carry, is_old_home: bool) -> TradingTerms:
    own = settings.markets.get(normalise_symbol(symbol), MarketSettings())
    costs = cost_sources(settings)
    return trading_terms(symbol, calendar, own, costs, settings.execution, carry, is_old_home)


@pytest.mark.parametrize(
    ("symbol", "calendar", "fee", "slippage", "funding"),
    [
        ("EURUSD", "24x5", 0.5, 0.2, 0.0),
        ("XAUUSD", "24x5", 0.5, 0.2, 0.0),
        ("EURUSD", "weekly:00ff", 0.5, 0.2, 0.0),
        ("GBPJPY.FX", "24x7", 0.5, 0.2, 0.0),
        ("EURUSDT", "24x7", 5.0, 2.0, 0.0),
        ("SPY", "XNYS", 1.0, 1.0, 0.0),
        ("ES.FUT", "CMES", 1.0, 1.0, 0.0),
        ("7203", "weekly:00ff", 1.0, 1.0, 0.0),
        ("BTCUSDT", "24x7", 5.0, 2.0, 0.0),
        ("BTCUSDT.P", "24x7", 5.0, 2.0, 1.0),
        ("BTCUSD.P-BTC", "24x7", 5.0, 2.0, 1.0),
    ],
)
def test_a_new_home_takes_the_costs_of_the_kind_of_market(
    folder: Path, symbol: str, calendar: str, fee: float, slippage: float, funding: float
) -> None:
    market_terms = terms(symbol, calendar)
    assert market_terms.costs == Costs(fee_bps=fee, slippage_bps=slippage)
    assert market_terms.holding == HoldingCosts(funding_bps_per_8h=funding)
    assert not market_terms.remarks


def test_an_old_home_keeps_7_bps_for_every_market_until_the_settings_name_others(folder: Path) -> None:
    assert terms("EURUSD", "24x5", is_old_home=True).costs == Costs(fee_bps=5.0, slippage_bps=2.0)
    (folder / "clm.toml").write_text("[markets.EURUSD.costs]\nfee_bps = 0.3\n")
    assert terms("EURUSD", "24x5", is_old_home=True).costs == Costs(fee_bps=0.3, slippage_bps=2.0)
    assert terms("SPY", "XNYS", is_old_home=True).costs == Costs(fee_bps=5.0, slippage_bps=2.0)
    (folder / "clm.toml").write_text('[costs]\ndefaults = "market"\n')
    assert terms("EURUSD", "24x5", is_old_home=True).costs == Costs(fee_bps=0.5, slippage_bps=0.2)
    (folder / "clm.toml").write_text('[costs]\ndefaults = "0.1.0"\n')
    assert terms("EURUSD", "24x5").costs == Costs(fee_bps=5.0, slippage_bps=2.0)


def test_the_costs_of_a_market_come_before_the_general_costs(folder: Path) -> None:
    (folder / "clm.toml").write_text(f"[costs]\nfee_bps = 9\n{OWN}")
    euro = terms("EURUSD", "24x5")
    assert euro.costs == Costs(fee_bps=0.3, slippage_bps=0.1)
    assert euro.origins["fee_bps"] == "[markets.EURUSD.costs]"
    other = terms("SPY", "XNYS")
    assert other.costs == Costs(fee_bps=9.0, slippage_bps=1.0)
    assert (other.origins["fee_bps"], other.origins["slippage_bps"]) == (
        "[costs]",
        "default of markets with sessions",
    )


def test_a_variable_does_not_replace_the_costs_of_a_market_and_is_remarked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "clm.toml").write_text(OWN)
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "9")
    euro = terms("EURUSD", "24x5")
    assert euro.costs.fee_bps == 0.3
    [remark] = euro.remarks
    assert remark.startswith("CLM_COSTS__FEE_BPS = 9 is not used: EURUSD has a fee of its own, 0.3 bps")


@pytest.mark.parametrize(
    ("file", "without"), [("", "5 bps (default of"), ("[costs]\nfee_bps = 4", "4 bps ([costs]")]
)
def test_a_variable_that_differs_from_the_file_is_remarked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, without: str
) -> None:
    (folder / "clm.toml").write_text(file)
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "9")
    bitcoin = terms("BTCUSDT", "24x7")
    assert (bitcoin.costs.fee_bps, bitcoin.origins["fee_bps"]) == (9.0, "CLM_COSTS__FEE_BPS")
    [remark] = bitcoin.remarks
    assert f"The fee of 9 bps comes from CLM_COSTS__FEE_BPS; without the variable {without}" in remark


def test_the_costs_of_the_home_are_those_of_the_file_whatever_the_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "clm.toml").write_text(f"[costs]\nfee_bps = 4\n{OWN}")
    without = load_settings()
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "0")
    monkeypatch.setenv("CLM_COSTS__SLIPPAGE_BPS", "0")
    monkeypatch.setenv("CLM_COSTS__DEFAULTS", "0.1.0")
    monkeypatch.setenv("CLM_MARKETS", '{"EURUSD": {"costs": {"fee_bps": 0}}, "SPY": {"long_only": true}}')
    settings = load_settings()
    assert (settings.costs.fee_bps, settings.costs.slippage_bps) == (0.0, 0.0)
    costs = home_cost_sources(settings)
    assert costs.general == without.costs
    assert (dict(costs.variables), costs.markets_variable) == ({}, False)
    assert home_markets(settings) == without.markets
    bitcoin = trading_terms("BTCUSDT", "24x7", MarketSettings(), costs, settings.execution, NO_CARRY, False)
    assert (bitcoin.costs, bitcoin.remarks) == (Costs(fee_bps=4.0, slippage_bps=2.0), ())


def test_a_variable_equal_to_the_file_is_not_remarked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "clm.toml").write_text("[costs]\nfee_bps = 9")
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "9.0")
    assert terms("BTCUSDT", "24x7").remarks == ()


@pytest.mark.parametrize("name", ["BTCUSDT.P", '"BTCUSDT.P"', '"BTC/USDT:USDT"', "btcusdt.p"])
def test_a_market_is_named_in_any_spelling_with_or_without_quotes(folder: Path, name: str) -> None:
    (folder / "clm.toml").write_text(
        f"[markets.{name}]\nfunding_bps_per_8h = 0.5\nborrow_bps_per_year = 7\n"
        f"[markets.{name}.costs]\nfee_bps = 3\n[markets.BTCUSDT]\nlong_only = true\n"
    )
    perpetual = terms("BTCUSDT.P", "24x7")
    assert perpetual.costs.fee_bps == 3.0
    assert perpetual.holding == HoldingCosts(funding_bps_per_8h=0.5, borrow_bps_per_year=7)
    assert not perpetual.long_only
    spot = terms("BTCUSDT", "24x7")
    assert spot.long_only
    assert spot.remarks == ("Long only: targets below 0 are traded as 0 ([markets.BTCUSDT] long_only).",)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("[markets.EURUSD]\nfee_bps = 1", "EURUSD.fee_bps"),
        ("[markets.EURUSD.cost]\nfee_bps = 1", "EURUSD.COST.fee_bps"),
        ("[markets.EURUSD.costs]\nfee_bps = -1", "greater than or equal to 0"),
        ('[markets."EUR/USD"]\nlong_only = true\n[markets.EURUSD]\nlong_only = false', "listed twice"),
        ('[markets."a b"]\nlong_only = true', "cannot be a symbol"),
    ],
)
def test_a_faulty_market_is_refused_by_name(folder: Path, file: str, message: str) -> None:
    (folder / "clm.toml").write_text(file)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_stored_rates_are_named_by_their_hash_in_the_terms() -> None:
    funding = Payments(np.array([0]), np.array([1e-4]))
    perpetual = terms_of(Settings(), "BTCUSDT.P", "24x7", Carry(funding=funding), is_old_home=False)
    assert (perpetual.funding_hash, perpetual.dividends_hash) == (funding.content_hash, None)
    assert perpetual.origins["funding_bps_per_8h"] == "stored funding rates"


def test_the_digest_of_the_terms_changes_with_every_term_and_not_with_their_origin() -> None:
    plan = WalkForwardPlan(seeds=1)
    base = TradingTerms()
    changed = [
        base.model_copy(update={"costs": Costs(fee_bps=1)}),
        base.model_copy(update={"holding": HoldingCosts(funding_bps_per_8h=1)}),
        base.model_copy(update={"long_only": True}),
        base.model_copy(update={"adjusted": True}),
        base.model_copy(update={"funding_hash": "a"}),
        base.model_copy(update={"execution": base.execution.model_copy(update={"stop_loss": 0.1})}),
    ]
    digests = [EvaluationTerms.of(each, plan, "24x7", 2).digest for each in (base, *changed)]
    digests.append(EvaluationTerms.of(base, plan.model_copy(update={"folds": 3}), "24x7", 2).digest)
    digests.append(EvaluationTerms.of(base, plan, "24x5", 2).digest)
    digests.append(EvaluationTerms.of(base, plan, "24x7", 1).digest)
    assert len(set(digests)) == len(digests)
    said = base.model_copy(update={"origins": {"fee_bps": "x"}, "remarks": ("y",)})
    assert EvaluationTerms.of(said, plan, "24x7", 2).digest == digests[0]


class OldLedger(Ledger):
    """A ledger with an evaluation by release 0.1.0, which recorded no terms."""

    def __init__(self, has_old: bool) -> None:
        self._has_old = has_old

    def has_unrecorded_terms(self) -> bool:
        return self._has_old


def test_a_home_made_by_release_0_1_0_says_once_that_it_keeps_the_old_costs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow").mkdir()
    settings = Settings(home=tmp_path)
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert _settle_costs(settings, OldLedger(False), HomeCosts.of(tmp_path))
    [said] = caplog.records
    assert "keeps 5 bps of fees and 2 bps of slippage" in said.message


def test_an_evaluation_without_terms_shows_an_installation_of_release_0_1_0(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert _settle_costs(settings, OldLedger(True), HomeCosts.of(tmp_path))
    new = tmp_path / "new"
    assert not _settle_costs(settings.model_copy(update={"home": new}), OldLedger(False), HomeCosts.of(new))
    # decided once: evaluations without terms that are added by hand later change nothing
    assert not _settle_costs(settings.model_copy(update={"home": new}), OldLedger(True), HomeCosts.of(new))
