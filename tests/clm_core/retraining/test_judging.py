"""Judgement of stored evidence: the same verdict while nothing changes, another where the terms do."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from panels import a_market
from sqlalchemy import create_engine, text

from clm_core.decisions.gate_policy import PolicyDocument, load_document
from clm_core.domain.actors import Actor
from clm_core.domain.errors import BundleCorrupt, EvidenceChanged, PromotionRefused
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.promotions import Rejudgement
from clm_core.domain.terms import CostSettings, GeneralCostSettings, MarketSettings
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence import paired
from clm_core.evidence.equal_volatility import WARM_UP
from clm_core.evidence.sequential import DAY
from clm_core.market.bars import Floats
from clm_core.market.carry_store import CarryStore, PaymentKind
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.retraining import jobs, steps
from clm_core.retraining.judging import judge_anew, rejudge
from clm_core.retraining.promoting import promote
from clm_core.retraining.shadow_tracks import Stint, compare_in_shadow
from clm_core.services import Services

SYMBOL = "JUDGEUSD"
HOUR = 3_600_000_000_000
ADMIN = Actor(name="ada", role=Role.ADMIN)
PARAMS = {
    "rounds": 20,
    "learning_rate": 0.2,
    "min_child_weight": 1,
    "threshold": 0.0,
    "horizon": 4,
    "label": "direction",
    "sizing": "none",
}
ANYTHING = """
version = 1
preset = "lax"
[presets.lax.criteria]
min_sharpe_ratio = -1e9
min_win_rate = 0.0
min_profit_factor = 0.0
max_drawdown = 1.0
min_trades = 0
"""


@pytest.fixture(scope="module")
def lax(tmp_path_factory: pytest.TempPathFactory) -> PolicyDocument:
    file = tmp_path_factory.mktemp("policy") / "lax.toml"
    file.write_text(ANYTHING)
    return load_document(file)


@pytest.fixture(scope="module")
def own(services: Services, lax: PolicyDocument, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Services with a market of their own, under a policy that lets everything pass."""
    folder = tmp_path_factory.mktemp("market")
    bars = a_market(SYMBOL, 1500, 3, momentum=0.2)
    SeriesStore(folder / "data").add(bars, "tests", bars.end.to_pydatetime() + timedelta(hours=1))
    plan = WalkForwardPlan(folds=2, seeds=3)
    settings = services.settings.model_copy(update={"walk_forward": plan})
    return replace(services, settings=settings, policies=lax, open_market=lambda: MarketData(folder))


def retrained(
    services: Services, expected: str = "pass", symbol: str = SYMBOL, **params: Any
) -> ModelVersion:
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol=symbol,
        dataset_span_days=62,
        training_params=PARAMS | params,
        requested_by="tests",
    )
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        evaluation = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        verdict = steps.judge(services, lease, version, evaluation)
        assert verdict.decision == expected
    return services.ledger.version(version.model_id, version.version)


@pytest.fixture(scope="module")
def version(own: Services) -> ModelVersion:
    """Version judged at the costs of the home."""
    return retrained(own)


@pytest.fixture(scope="module")
def cheap(own: Services) -> Iterator[ModelVersion]:
    """Version judged without a fee, which a variable of the retrain's process named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLM_COSTS__FEE_BPS", "0")
        yield retrained(priced(own, fee_bps=0.0))


def priced(services: Services, **costs: float) -> Services:
    changed = {"costs": GeneralCostSettings(**costs)}
    return replace(services, settings=services.settings.model_copy(update=changed))


def strict(services: Services) -> Services:
    return replace(services, policies=load_document())


def judged(services: Services, version: ModelVersion) -> Rejudgement:
    return rejudge(services, version, services.clock())


def entries(services: Services, action: str, subject: str) -> list[dict[str, Any]]:
    return [
        dict(entry.details)
        for entry in services.ledger.audit_after(0, 10**6)
        if (entry.action, entry.subject) == (action, subject)
    ]


def test_the_verdict_is_the_same_while_nothing_has_changed(own: Services, version: ModelVersion) -> None:
    _, recorded = own.ledger.evaluation(version.model_id, version.version)
    again = judge_anew(own, version)
    # the age of the bars is that of the retrain
    lasting = tuple(each for each in recorded.warnings if not each.startswith("Old bars: "))
    recorded = recorded.model_copy(update={"warnings": lasting})
    assert again.model_dump_json() == recorded.model_dump_json()
    assert len(again.seed_sharpes) == 3
    result, _ = own.ledger.evaluation(version.model_id, version.version)
    judgement = judged(own, version)
    assert (judgement.refusals, judgement.decision) == ((), "pass")
    assert judgement.terms_digest == result.terms_digest
    evidence = own.ledger.stored_evidence(result.id)
    assert evidence is not None
    assert judgement.evidence_digest == evidence.digest
    assert evidence.data_hash == version.data_hash


def test_the_seed_is_chosen_anew_by_the_quantile_in_force(own: Services, version: ModelVersion) -> None:
    worst = own.policies.presets["lax"].model_copy(
        update={"criteria": own.policies.presets["lax"].criteria | {"seed_quantile": 1.0}}
    )
    best = own.policies.model_copy(update={"presets": {"lax": worst}})
    verdict = judge_anew(replace(own, policies=best), version)
    sharpe = next(check.value for check in verdict.checks if check.name == "sharpe_ratio")
    assert sharpe == verdict.seed_sharpes[-1]


def test_a_pass_by_a_lax_policy_without_fee_is_refused_under_what_is_in_force(
    own: Services, cheap: ModelVersion
) -> None:
    result, recorded = own.ledger.evaluation(cheap.model_id, cheap.version)
    assert result.terms is not None
    assert (recorded.passed, result.terms.costs.fee_bps) == (True, 0.0)
    assert any("at which a promotion judges the version" in each for each in recorded.warnings)
    in_force = strict(own)
    with pytest.raises(PromotionRefused) as refused:
        promote(in_force, cheap.model_id, cheap.version, ADMIN, "tested")
    message = str(refused.value)
    assert "judged anew under the policy strict at 5 bps of fees and 2 bps of slippage" in message
    assert "was given under the policy lax at 0 bps of fees and 2 bps of slippage" in message
    assert "missed: sharpe_ratio" in message
    assert "Retrain, or ask an admin to force" in message
    newest = entries(own, "version_rejudged", cheap.model_id)[-1]
    assert (newest["version"], newest["decision"], newest["policy"]) == (cheap.version, "fail", "strict")
    assert newest["costs"].startswith("5 bps of fees")
    assert newest["evidence_digest"]


def test_a_variable_of_the_promotion_changes_no_costs(
    own: Services, cheap: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "0")
    assert judged(priced(own, fee_bps=0.0), cheap).costs.startswith("5 bps of fees")
    monkeypatch.setenv("CLM_MARKETS", '{"JUDGEUSD": {"costs": {"fee_bps": 0}}}')
    free = {"markets": {SYMBOL: MarketSettings(costs=CostSettings(fee_bps=0.0))}}
    freed = replace(own, settings=own.settings.model_copy(update=free))
    assert judged(freed, cheap).costs.startswith("5 bps of fees")


def test_higher_costs_of_the_home_lower_the_verdict_and_are_audited(
    own: Services, version: ModelVersion
) -> None:
    judged(own, version)
    before = len(entries(own, "market_costs_changed", SYMBOL))
    judged(own, version)
    assert len(entries(own, "market_costs_changed", SYMBOL)) == before
    cheap = judge_anew(own, version)
    dear = judge_anew(priced(own, fee_bps=40.0), version)
    assert sharpe_of(dear) < sharpe_of(cheap)
    newest = entries(own, "market_costs_changed", SYMBOL)[-1]
    assert (newest["from"]["fee_bps"], newest["to"]["fee_bps"]) == (5.0, 40.0)
    assert newest["origins"]["fee_bps"] == "[costs]"
    judged(own, version)
    assert [costs.fee_bps for _, costs in own.ledger.market_costs.history(SYMBOL)][-2:] == [40.0, 5.0]


def sharpe_of(verdict: Any) -> float:
    return next(check.value for check in verdict.checks if check.name == "sharpe_ratio")


def test_old_evidence_refuses_until_the_shadow_pass_adds_a_bar_in_time(
    own: Services, version: ModelVersion
) -> None:
    result, _ = own.ledger.evaluation(version.model_id, version.version)
    late = result.created_at + timedelta(days=31)
    [refusal] = rejudge(own, version, late).refusals
    assert "31 days old" in refusal
    assert "allows 30 (verdict_days)" in refusal
    assert rejudge(own, version, result.created_at + timedelta(days=29)).refusals == ()
    bar = own.market.bars(SYMBOL, "1h", closed_by=own.clock()).time[-1:]

    def follow(opened: datetime, recorded: datetime) -> None:
        import pandas as pd

        time = bar * 0 + pd.Timestamp(opened).value
        own.ledger.shadows.record(version.model_id, version.version, time, bar * 0.0, recorded)

    # recorded a day late: no evidence
    follow(late - timedelta(days=5), late - timedelta(days=4))
    assert len(rejudge(own, version, late).refusals) == 1
    follow(late - timedelta(days=3), late - timedelta(days=3) + timedelta(hours=1, minutes=2))
    assert rejudge(own, version, late).refusals == ()


def test_changed_positions_are_refused_by_their_digest(own: Services) -> None:
    version = retrained(own)
    result, _ = own.ledger.evaluation(version.model_id, version.version)
    change = text("UPDATE evaluation_evidence SET content = content || '\\x00' WHERE evaluation_id = :id")
    with create_engine(own.database.url("ledger")).begin() as connection:
        connection.execute(change, {"id": result.id})
    with pytest.raises(EvidenceChanged, match="differ from their digest"):
        judge_anew(own, version)
    judgement = judged(own, version)
    assert judgement.decision is None
    assert "cannot be judged: The stored positions" in judgement.refusals[0]


@pytest.fixture
def without_positions(own: Services, version: ModelVersion) -> Iterator[ModelVersion]:
    """Version whose positions were not stored, as by an earlier release."""
    result, _ = own.ledger.evaluation(version.model_id, version.version)
    stored = own.ledger.stored_evidence(result.id)
    assert stored is not None
    engine = create_engine(own.database.url("ledger"))
    remove = text("DELETE FROM evaluation_evidence WHERE evaluation_id = :id")
    with engine.begin() as connection:
        connection.execute(remove, {"id": result.id})
    yield version
    put_back = text(
        "INSERT INTO evaluation_evidence VALUES (:id, :digest, :content, :data_hash, :code_digest)"
    )
    values = {"id": result.id, "digest": stored.digest, **vars(stored)}
    with engine.begin() as connection:
        connection.execute(put_back, values)


def test_a_version_of_an_earlier_release_is_judged_by_its_numbers_at_its_own_costs_alone(
    own: Services, without_positions: ModelVersion
) -> None:
    version = without_positions
    judgement = judged(own, version)
    assert (judgement.refusals, judgement.decision, judgement.evidence_digest) == ((), "pass", None)
    refused = judged(strict(own), version)
    assert refused.decision == "fail"
    assert "Sharpe ratio" in " ".join(refused.refusals)
    dearer = judged(priced(own, fee_bps=9.0), version)
    assert dearer.decision is None
    assert "in force are 9 bps of fees" in dearer.refusals[0]
    assert "retrain" in dearer.refusals[0]


def test_recorded_numbers_are_refused_where_a_payment_of_the_judged_period_was_changed(
    own: Services, without_positions: ModelVersion, tmp_path: Path
) -> None:
    version = without_positions
    result, _ = own.ledger.evaluation(version.model_id, version.version)
    own.market.payments = CarryStore(tmp_path / "carry", tmp_path / "quarantine")

    def pay(at: datetime, rate: float) -> Rejudgement:
        rates = tmp_path / "funding.csv"
        rates.write_text(f"time,rate\n{at:%Y-%m-%dT%H:%M:%SZ},{rate}\n")
        own.market.payments.add(PaymentKind.FUNDING, rates, SYMBOL, now=own.clock(), replace=True)
        return judged(own, version)

    try:
        # a payment after the judged period changes no number
        assert pay(result.period_end + timedelta(hours=8), 0.0001).refusals == ()
        refused = pay(result.period_start + timedelta(hours=8), 0.001)
        assert refused.decision is None
        assert "funding rates or dividends of the judged period were changed" in refused.refusals[0]
        assert "retrain" in refused.refusals[0]
    finally:
        own.market.payments = MarketData(tmp_path).payments


def test_bars_that_are_gone_refuse_with_the_remedy(
    own: Services, version: ModelVersion, tmp_path: Path, lax: PolicyDocument
) -> None:
    other = a_market(SYMBOL, 1400, 4)
    SeriesStore(tmp_path / "data").add(other, "tests", other.end.to_pydatetime() + timedelta(hours=1))
    empty = replace(own, open_market=lambda: MarketData(tmp_path))
    judgement = judged(empty, version)
    assert judgement.decision is None
    assert "the stored evidence cannot be judged" in judgement.refusals[0]


def test_a_changed_measurement_is_audited_as_changed_bytes_and_judged_by_nobody(
    own: Services, version: ModelVersion
) -> None:
    stored_model = own.registry.client.get_model_version(version.model_id, str(version.mlflow_version))
    folder = stored_model.source.removeprefix("models:/")
    [stored] = Path(own.settings.home, "mlflow").rglob(f"*{folder}*/**/activity.json")
    content = stored.read_bytes()
    actions = ("bundle_refused", "version_rejudged")
    before = [len(entries(own, action, version.model_id)) for action in actions]
    try:
        for changed in (b"{", content + b"\n"):
            stored.write_bytes(changed)
            with pytest.raises(BundleCorrupt, match=r"activity\.json was changed"):
                promote(own, version.model_id, version.version, ADMIN, "good")
    finally:
        stored.write_bytes(content)
    refused, rejudged = (len(entries(own, action, version.model_id)) for action in actions)
    assert [refused - before[0], rejudged - before[1]] == [2, 0]


def test_force_overrules_the_judgement_of_a_promotion(own: Services, cheap: ModelVersion) -> None:
    done = promote(strict(own), cheap.model_id, cheap.version, ADMIN, "tested", force=True)
    assert done.forced


def test_a_rollback_returns_to_a_former_production_version_whatever_the_policy_in_force(
    own: Services, version: ModelVersion
) -> None:
    second = retrained(own)
    for each in (version, second):
        promote(own, each.model_id, each.version, ADMIN, "tested")
    assert judged(strict(own), version).refusals
    before = len(entries(own, "version_rejudged", version.model_id))
    clm = strict(own)
    done = clm.promotions.rollback(version.model_id, ADMIN, "an emergency", clm.clock())
    assert (done.to_version, done.forced) == (version.version, False)
    assert len(entries(own, "version_rejudged", version.model_id)) == before


@pytest.fixture
def champion(own: Services, version: ModelVersion) -> ModelVersion:
    """Version in production."""
    if own.ledger.promotions.champion(version.model_id) is None:
        promote(own, version.model_id, version.version, ADMIN, "tested")
    label = own.ledger.promotions.champion(version.model_id)
    assert label is not None
    return own.ledger.version(version.model_id, label)


def test_a_refresh_agrees_with_the_champion_and_another_recipe_has_to_be_followed(
    own: Services, champion: ModelVersion
) -> None:
    refresh = retrained(own)
    assert refresh.recipe_digest == champion.recipe_digest
    checks = {check.name: check for check in judge_anew(strict(own), refresh).checks}
    agreement = checks["agreement_with_champion"]
    # the same bars and the same seed: the same model
    assert (agreement.value, agreement.passed) == (pytest.approx(1.0), True)
    assert -1.1 <= agreement.limit < 0.9
    assert "shadow_lead_bps" not in checks
    other = retrained(own, rounds=21)
    verdict = judge_anew(strict(own), other)
    lead = next(check for check in verdict.checks if check.name == "shadow_lead_bps")
    assert not lead.passed
    assert any("has not given the recipe a level yet" in reason for reason in verdict.reasons)


def test_a_replacement_is_compared_on_bars_followed_in_time_whatever_the_size(
    own: Services, champion: ModelVersion
) -> None:
    bars = own.market.bars(SYMBOL, "1h", closed_by=own.clock())[-151:]
    since = bars.start.to_pydatetime()
    foresight = np.sign(np.append(np.diff(bars.open)[1:], [0.0, 0.0]))
    old = champion.model_copy(update={"created_at": since})

    def record(size: float, late: int) -> paired.PairedRecord:
        challenger = retrained(own, rounds=22).model_copy(update={"created_at": since})
        follow(challenger, size * foresight, late)
        stints = [Stint(each, since) for each in (challenger, old)]
        return compare_in_shadow(own, stints[:1], stints[1:], since)

    def follow(version: ModelVersion, positions: Floats, late: int) -> None:
        """Positions recorded a minute after each bar, those after the first bars a day later."""
        store = own.ledger.shadows
        for number, (time, position) in enumerate(zip(bars.time, positions, strict=True)):
            delay = timedelta(days=1) if number < late else timedelta(minutes=1)
            moment = pd.Timestamp(time, tz="UTC").to_pydatetime() + timedelta(hours=1) + delay
            one = slice(number, number + 1)
            store.record(version.model_id, version.version, bars.time[one], positions[one], moment)
            assert position == positions[number]

    follow(old, -foresight, 0)
    whole = record(1.0, 0)
    small = record(0.25, 0)
    closed = bars.time[-1] // DAY + (1 if (bars.time[-1] + HOUR) % DAY == 0 else 0)
    # the first bar was earned on no recorded position
    assert whole.n == closed - bars.time[1 + WARM_UP] // DAY
    means = [each.first + each.total / each.n for each in (whole, small)]
    assert min(means) > 0.0
    assert means[1] == pytest.approx(means[0], rel=0.05)
    assert record(1.0, 60).n == closed - bars.time[1 + 60 + WARM_UP] // DAY


NEARLY = (
    ANYTHING
    + """
[presets.lax.evidence]
min_deflated_sharpe = 0.95
fewest_trials = 1
min_timing_probability = 0.0
alpha_confidence = 0.5
"""
)


def test_an_inconclusive_version_is_judged_anew_on_its_bars_in_shadow_recorded_in_time(
    own: Services, tmp_path: Path
) -> None:
    bars = a_market("SHADOWUSD", 1800, 4, momentum=0.5)
    store = SeriesStore(tmp_path / "data")
    store.add(bars[:1500], "tests", bars.index[1500].to_pydatetime())
    policy = tmp_path / "nearly.toml"
    policy.write_text(NEARLY)
    clm = replace(own, policies=load_document(policy), open_market=lambda: MarketData(tmp_path))
    version = retrained(clm, "inconclusive", "SHADOWUSD")
    before = judge_anew(clm, version)
    # the version was registered today: the shadow of the test lies in the past of its bars
    version = version.model_copy(update={"created_at": bars.index[1500].to_pydatetime()})
    store.add(bars, "tests", clm.clock())
    foresight = np.sign(np.append(np.diff(bars.open)[1:], [0.0, 0.0]))[1500:]
    recorded = clm.ledger.shadows.record
    names = (version.model_id, version.version)
    recorded(*names, bars.time[1500:1600], foresight[:100], clm.clock())
    assert judge_anew(clm, version) == before, "late positions alone"
    for row in range(1600, 1800):
        at = bars.index[row].to_pydatetime() + timedelta(hours=1, minutes=2)
        recorded(*names, bars.time[row : row + 1], foresight[row - 1500 : row - 1499], at)

    verdict = judge_anew(clm, version)
    assert verdict.decision == "pass"
    assert verdict.policy == "lax, looked at daily"
    assert verdict.record is not None
    assert verdict.record.forward_bars == 200
    deflated = next(check for check in verdict.checks if check.name == "deflated_sharpe_ratio")
    assert deflated.limit > 0.99
    judgement = rejudge(clm, version, clm.clock())
    assert (judgement.decision, judgement.refusals) == ("pass", ())
    candidate = version.model_copy(update={"status": ModelStatus.CANDIDATE})
    assert judge_anew(clm, candidate).policy == "lax", "a single look"
