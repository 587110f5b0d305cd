"""Gate policies: read, merged by preset, market and model, and validated on loading."""

from importlib.resources import files
from pathlib import Path

import pytest

from clm_core.decisions.allocation_rules import AllocationRules
from clm_core.decisions.gate_policy import (
    ALTERNATIVES,
    STORE_KEYS,
    EvidenceLevels,
    GatePolicy,
    PromotionCriteria,
    load_document,
    load_store,
    with_store,
)
from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.domain.errors import PolicyError

OWN = """
version = 3
preset = "strict"

[markets.BTCUSDT.criteria]
max_drawdown = 0.2

[models.xgboost_btcusdt_1h]
criteria.min_trades = 200
evidence.min_deflated_sharpe = 0.99

[models.nhits_btcusdt_1h]
preset = "thresholds-only"

[presets.cautious]
criteria = { min_sharpe_ratio = 2.0 }
evidence = {}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(OWN)
    return file


def test_the_shipped_policy_is_strict_with_the_defaults_of_every_level() -> None:
    policy = load_document().policy("xgboost_btcusdt_1h", "BTCUSDT")
    assert policy == GatePolicy(name="strict", criteria=PromotionCriteria(), evidence=EvidenceLevels())


def test_thresholds_only_are_the_same_criteria_without_evidence() -> None:
    policy = load_document(preset="thresholds-only").policy("xgboost_btcusdt_1h", "BTCUSDT")
    assert policy == GatePolicy(name="thresholds-only", evidence=None)


def test_a_model_overrides_its_market_which_overrides_the_preset(own: Path) -> None:
    policy = load_document(own).policy("xgboost_btcusdt_1h", "BTCUSDT")
    assert policy == GatePolicy(
        name="strict + overrides",
        criteria=PromotionCriteria(max_drawdown=0.2, min_trades=200),
        evidence=EvidenceLevels(min_deflated_sharpe=0.99),
        binding=("max_drawdown",),
    )


def test_another_model_of_the_market_has_only_the_market_s_levels(own: Path) -> None:
    policy = load_document(own).policy("lightgbm_btcusdt_1h", "BTCUSDT")
    assert policy.criteria == PromotionCriteria(max_drawdown=0.2)
    assert policy.evidence == EvidenceLevels()


def test_a_model_may_have_a_preset_of_its_own(own: Path) -> None:
    policy = load_document(own).policy("nhits_btcusdt_1h", "ETHUSDT")
    assert policy == GatePolicy(name="thresholds-only", evidence=None)


def test_a_preset_of_one_s_own_stands_beside_those_of_the_package(own: Path) -> None:
    document = load_document(own, preset="cautious")
    assert document.policy("lightgbm_ethusdt_1h", "ETHUSDT") == GatePolicy(
        name="cautious", criteria=PromotionCriteria(min_sharpe_ratio=2.0)
    )
    assert {"strict", "classic", "thresholds-only", "cautious"} == set(document.presets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 1", "preset: Field required"),
        ("preset = ", "not valid TOML"),
        ('version = 1\npreset = "lax"', "no policy preset lax: choose from strict, classic, thresholds-only"),
        ('version = 1\npreset = "strict"\nmarket = {}', "market: Extra inputs"),
        (
            'version = 1\npreset = "strict"\n[models.m.criteria]\nmin_sharp = 1',
            "policy of m is not allowed: criteria.min_sharp",
        ),
        (
            'version = 1\npreset = "strict"\n[markets.B.criteria]\nmin_sharpe_ratio = nan',
            "criteria.min_sharpe_ratio: .*finite",
        ),
        (
            'version = 1\npreset = "strict"\n[models.m.evidence]\nmin_deflated_sharpe = 1.0',
            "evidence.min_deflated_sharpe: .*less than 1",
        ),
        ('version = 1\npreset = "strict"\n[models.m]\npreset = "lax"', "no policy preset lax"),
    ],
    ids=[
        "incomplete",
        "broken",
        "unknown preset",
        "unknown key",
        "unknown criterion",
        "nan",
        "out of range",
        "model's preset",
    ],
)
def test_an_invalid_policy_is_refused_on_reading(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=message):
        load_document(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"gone.toml cannot be read \(No such file"):
        load_document(tmp_path / "gone.toml")


class Store(dict[str, float]):
    """A risk side's limits."""


def test_the_policy_store_overrides_criteria_and_keeps_the_rest() -> None:
    policy = GatePolicy(name="strict")
    stored = with_store(policy, Store({"clm_v3.min_sharpe": 1.5, "clm_v3.max_dd": 0.1}))
    assert stored.criteria == PromotionCriteria(min_sharpe_ratio=1.5, max_drawdown=0.1)
    assert stored.evidence == policy.evidence
    assert stored.digest != policy.digest
    assert set(STORE_KEYS) <= set(PromotionCriteria.model_fields)


@pytest.mark.parametrize(
    ("answers", "binding"),
    [
        ({}, ()),
        ({"clm_v3.min_win_rate": 0.52}, ("min_win_rate",)),
        ({"clm_v3.max_dd": 0.2, "clm_v3.min_profit_factor": 1.3}, ("max_drawdown", "min_profit_factor")),
        ({"clm_v3.min_sharpe": 2.0}, ()),
    ],
    ids=["no answer", "the default itself", "two limits", "a limit without alternative"],
)
def test_a_limit_binds_as_it_stands_where_the_store_answers(
    answers: dict[str, float], binding: tuple[str, ...]
) -> None:
    assert with_store(GatePolicy(name="strict"), Store(answers)).binding == binding


def test_a_limit_binds_as_it_stands_where_a_file_names_it_under_every_preset(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('version = 1\npreset = "strict"\n[models.m.criteria]\nmin_win_rate = 0.52\n')
    document = load_document(file)
    assert document.policy("m", "any market").binding == ("min_win_rate",)
    assert document.policy("another model", "any market").binding == ()


def test_classic_asks_all_five_limits_as_they_stand_with_the_evidence() -> None:
    classic = load_document(preset="classic").policy("any model", "any market")
    assert classic.binding == ALTERNATIVES
    assert classic.criteria == PromotionCriteria()
    assert classic.evidence == EvidenceLevels()


def test_a_copy_of_the_shipped_policy_binds_no_limit_that_was_left_a_comment(tmp_path: Path) -> None:
    copy = tmp_path / "policy.toml"
    copy.write_bytes(files("clm_core.decisions").joinpath("policy.toml").read_bytes())
    assert load_document(copy).policy("any model", "any market") == GatePolicy(name="strict")


def test_the_rules_of_shadows_are_merged_as_the_levels_and_change_no_digest(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        OWN + "[markets.BTCUSDT.lifecycle]\nmax_days = 90\n"
        "[markets.BTCUSDT.lifecycle.allocation]\nfloor = 0.1\n"
        "[models.nhits_btcusdt_1h.lifecycle]\nrefresh = 'approval'\nallocation.observed = 'fills'\n"
    )
    document = load_document(file)
    assert document.lifecycle("any model", "ETHUSDT") == LifecycleRules()
    assert document.lifecycle("xgboost_btcusdt_1h", "BTCUSDT") == LifecycleRules(
        max_days=90, allocation=AllocationRules(floor=0.1)
    )
    by_thresholds = LifecycleRules(
        promotion="off",
        refresh="approval",
        max_days=90,
        allocation=AllocationRules(floor=0.1, observed="fills"),
    )
    assert document.lifecycle("nhits_btcusdt_1h", "BTCUSDT") == by_thresholds
    before = load_document().policy("any model", "ETHUSDT")
    assert document.policy("any model", "ETHUSDT").digest == before.digest


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("promotion = 'sometimes'", "promotion: Input should be 'auto', 'approval' or 'off'"),
        ("max_days = 30", "every shadow would expire before it confirms"),
        ("yearly_eror = 0.05", "yearly_eror: Extra inputs are not permitted"),
        ("allocation.floor = 0.4", "allocation: .*weights of 0.3 and 0.7, which are not between floor = 0.4"),
        ("allocation = 'even'", "allocation: Input should be a valid dictionary"),
    ],
    ids=["unknown word", "expires too early", "misspelt", "weights at the start", "no table"],
)
def test_invalid_rules_of_shadows_are_named_on_loading(levels: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f"{OWN}[presets.cautious.lifecycle]\n{levels}\n")
    with pytest.raises(PolicyError, match=f"The lifecycle of cautious is not allowed: .*{message}"):
        load_document(file)


def test_a_policy_store_cannot_turn_a_limit_off_with_nan() -> None:
    with pytest.raises(PolicyError, match="answer of the policy store is not allowed: min_sharpe_ratio"):
        with_store(GatePolicy(name="strict"), Store({"clm_v3.min_sharpe": float("nan")}))


@pytest.mark.parametrize(
    ("name", "message"),
    [("no.such.module:store", "cannot be loaded"), ("math:nothing", "cannot be loaded")],
)
def test_a_policy_store_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load_store(name)


def test_a_policy_store_is_what_a_name_says_or_what_it_makes() -> None:
    assert load_store("os:environ").get("no_such_limit", 1.0) == 1.0
    assert load_store("builtins:dict").get("no_such_limit", 2.0) == 2.0
