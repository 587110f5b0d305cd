"""Judgement of out-of-sample evidence: after a training, and anew at a promotion.

A verdict holds under the terms it was given under. The ledger keeps the out-of-sample positions of every
seed, so that a promotion can judge them under the policy, costs and champion in force: the same backtests and
the same gate as after the training, on the bars of the training. Later trials belong to
later versions and do not count. An INCONCLUSIVE version is judged on its bars in shadow too.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions import gate
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.errors import CLMError, EvidenceChanged, NotFound, RegistryUnavailable
from clm_core.domain.evaluations import CheckStatus, EvaluationResult, Verdict
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import Kind
from clm_core.domain.promotions import Rejudgement
from clm_core.domain.stored_evidence import StoredEvidence
from clm_core.domain.terms import EvaluationTerms, cost_sentence
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.soundness import skill_of
from clm_core.ledger.executions import version_execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel, members_of
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import activity
from clm_core.retraining import case, folds, pools
from clm_core.retraining.champion import champion_of
from clm_core.retraining.counted_trials import counted_trials
from clm_core.retraining.evaluation import backtest_seeds, baseline_sizer, evaluation_of
from clm_core.retraining.recorded_numbers import calendar_of, judge_recorded_numbers
from clm_core.retraining.results import BacktestEvaluation, ChampionModel, FittedModel
from clm_core.retraining.searched import search_risk
from clm_core.retraining.shadow_evidence import continued_in_shadow
from clm_core.retraining.stored_evidence import OutOfSampleRuns, unpack
from clm_core.retraining.succession import succession_of
from clm_core.services import Services

TermsOf = Callable[[str, Calendar], MarketTerms]
"""Function of symbol and calendar that answers with the terms of a market."""


@dataclass(frozen=True)
class Judgement:
    """Verdict on stored evidence, with the terms and the policy of the judgement."""

    verdict: Verdict
    costs: str
    """Costs of the judgement as a clause."""
    terms_digest: str | None
    """SHA-256 of the terms, hexadecimal; None for numbers recorded by release 0.1.0."""
    evidence_digest: str | None
    """SHA-256 of the stored positions, hexadecimal; None for recorded numbers without positions."""


def market_terms(terms_of: TermsOf, bars: Bars | Panel, rules: ExecutionRules) -> dict[str, MarketTerms]:
    """Terms of the market, or of each member of a pool, with the execution of a version."""
    return {each.symbol: terms_of(each.symbol, each.calendar).under(rules) for each in members_of(bars)}


def settle_costs(services: Services, symbols: Sequence[str], calendar: Calendar | str) -> None:
    """Record the costs of the markets by the settings of the home; a change is an entry of the audit."""
    now = services.clock()
    for symbol in symbols:
        services.ledger.market_costs.settle(symbol, services.home_terms(symbol, calendar).terms, now)


def verdict_on(
    services: Services,
    version: ModelVersion,
    evaluation: BacktestEvaluation,
    policy: GatePolicy,
    until: datetime | None = None,
    growth: float | None = None,
) -> Verdict:
    """Verdict on an evaluation against the champion of the moment, by the trials of the market under every
    name, and within the policy's budget for the fleet.

    Args:
        until: latest time of a counted trial; None counts all.
        growth: for a record judged again and again, the longest over the shortest; None for a single look.
    """
    compare = pools.compare_with_champion if evaluation.members else case.compare_with_champion
    symbols = tuple(member.bars.symbol for member in evaluation.members)
    counted = counted_trials(
        services.ledger,
        services.market,
        version.symbol,
        version.timeframe,
        symbols,
        now=services.clock(),
        until=until,
        recipe=(
            Kind(version.model_type, version.plugin),
            services.ledger.job(version.training_job_id).training_params,
        ),
    )
    policy = policy.within_fleet(counted.markets)
    if growth is not None:
        policy = policy.looked_at(growth)
    selection = search_risk(services.ledger, version, until)
    champion = champion_of(services, version)
    against = None
    succession = None
    if champion is not None:
        rules = services.settings.execution.rules
        against = compare(services.ledger, services.market, champion, evaluation, rules)
        if policy.evidence is not None:
            agreements = evaluation.runs.agreements[evaluation.judged_seed].tolist()
            succession = succession_of(services, version, champion, evaluation, agreements)
    trials = counted.count(policy.fewest_trials)
    judged = case.build_case(evaluation, trials, against, selection, succession)
    verdict = gate.judge(judged, policy)
    seeds = evaluation.seed_sharpes
    by_fold = () if evaluation.fitted is None else evaluation.fitted.folds
    updates = {
        "seed_sharpes": seeds if len(seeds) > 1 else (),
        "luck": counted.stated_luck(verdict.luck, policy),
        "warnings": (
            *verdict.warnings,
            *counted.warnings,
            *evaluation.market.terms.remarks,
            *_of_record(evaluation),
            *_of_champion(champion),
            *folds.degenerate(by_fold),
        ),
        "folds": by_fold,
        "baselines": case.compare_with_baselines(evaluation),
        "rules": case.results_of_rules(evaluation),
        "record": evaluation.record,
        "by_symbol": pools.by_symbol(evaluation.members, evaluation.plan, len(seeds)),
    }
    return verdict.model_copy(update=updates)


def _of_record(evaluation: BacktestEvaluation) -> tuple[str, ...]:
    """Sentence on a record longer than the first walk-forward, corrected or without a version."""
    facts = evaluation.record
    if facts is None or not (facts.forward_bars or facts.corrected_from or facts.problem):
        return ()
    return (f"The judged record is the recipe's, {facts.sentence}.",)


def _of_champion(champion: ChampionModel | None) -> tuple[str, ...]:
    """Sentence on a champion that was trained again for the comparison."""
    return () if champion is None or champion.remark is None else (f"Champion: {champion.remark}.",)


def recorded_terms(evaluation: BacktestEvaluation, plan: WalkForwardPlan) -> EvaluationTerms:
    """Terms of an evaluation for the ledger."""
    bars = evaluation.bars
    seeds = len(evaluation.seed_sharpes)
    run = plan.model_copy(update={"seeds": seeds})
    terms = EvaluationTerms.of(evaluation.market.terms, run, str(bars.calendar), bars.gap_rules)
    members = {
        member.bars.symbol: pools.member_record(member, plan, seeds).digest for member in evaluation.members
    }
    return terms.model_copy(update={"members": members})


def judge_anew(services: Services, version: ModelVersion) -> Verdict:
    """Verdict on the stored evidence of a version under the policy, costs and champion in force.

    Raises:
        NotFound: the version was never judged.
        UnknownSeries: the bars of the training are no longer stored.
        EvidenceChanged: the stored positions were changed.
    """
    result, recorded = services.ledger.evaluation(version.model_id, version.version)
    return _judge(services, version, result, recorded).verdict


def rejudge(services: Services, version: ModelVersion, now: datetime) -> Rejudgement:
    """Judgement of a version's stored evidence for a promotion, with every reason against the promotion.

    Raises:
        NotFound: the version was never judged.
    """
    ledger = services.ledger
    result, recorded = ledger.evaluation(version.model_id, version.version)
    policy = services.policy(version.model_id, version.symbol)
    evidence_at = _newest_evidence(services, version, result)
    refusals = list(_too_old(evidence_at, now, policy))
    judgement = None
    try:
        judgement = _judge(services, version, result, recorded)
    except CLMError as error:
        refusals.append(f"the stored evidence cannot be judged: {error}")
    if judgement is not None:
        refusals += _against(judgement, policy, result, ledger.policy_of(version.model_id, version.version))
    return Rejudgement(
        evaluation=result.id,
        evidence_digest=None if judgement is None else judgement.evidence_digest,
        evidence_at=evidence_at,
        champion=ledger.promotions.champion(version.model_id),
        decision=None if judgement is None else judgement.verdict.decision,
        refusals=tuple(refusals),
        policy=policy.name,
        policy_hash=policy.digest,
        terms_digest=None if judgement is None else judgement.terms_digest,
        costs="" if judgement is None else judgement.costs,
    )


def _newest_evidence(services: Services, version: ModelVersion, result: EvaluationResult) -> datetime:
    """Time of the verdict, or of a later shadow bar whose position was recorded in time."""
    bar = timedelta(seconds=Timeframe(version.timeframe).seconds)
    followed = services.ledger.shadows.newest_in_time(version.model_id, version.version, bar)
    return result.created_at if followed is None else max(result.created_at, followed)


def _too_old(evidence_at: datetime, now: datetime, policy: GatePolicy) -> list[str]:
    age = (now - evidence_at) / timedelta(days=1)
    # Written as `not (<=)` so that a NaN refuses.
    if not age <= policy.verdict_days:
        return [
            f"the newest evidence is of {evidence_at:%Y-%m-%d}, {age:.0f} days old, and the policy "
            f"{policy.name} allows {policy.verdict_days:g} (verdict_days): retrain, or promote a version "
            "that the shadow pass follows"
        ]
    return []


def _against(
    judgement: Judgement, policy: GatePolicy, result: EvaluationResult, judged_by: GatePolicy
) -> list[str]:
    """Reasons against a promotion by the verdict in force, with what the recorded verdict was given under."""
    verdict = judgement.verdict
    if verdict.passed:
        return []
    given = ""
    if judged_by.digest != policy.digest or result.costs_in_words != judgement.costs:
        given = (
            f" (the verdict of {result.created_at:%Y-%m-%d} was given under the policy {judged_by.name} at "
            f"{result.costs_in_words})"
        )
    missed = [check.name for check in verdict.checks if check.status is CheckStatus.MISSED]
    first = (
        f"judged anew under the policy {policy.name} at {judgement.costs} the verdict is "
        f"{verdict.decision.value.upper()}{given}, missed: {', '.join(missed) or 'see below'}"
    )
    return [first, *verdict.reasons]


def _judge(
    services: Services, version: ModelVersion, result: EvaluationResult, recorded: Verdict
) -> Judgement:
    evidence = services.ledger.stored_evidence(result.id)
    if evidence is not None:
        return _judge_positions(services, version, result, recorded, evidence)
    job = services.ledger.job(version.training_job_id)
    settle_costs(services, job.symbols or (job.symbol,), calendar_of(result))
    verdict = judge_recorded_numbers(services, version, job, result, recorded)
    return Judgement(verdict, result.costs_in_words, result.terms_digest, None)


def _judge_positions(
    services: Services,
    version: ModelVersion,
    result: EvaluationResult,
    recorded: Verdict,
    evidence: StoredEvidence,
) -> Judgement:
    """Backtests and gate on the stored positions, on the bars of the training."""
    job = services.ledger.job(version.training_job_id)
    runs = unpack(evidence.content)
    shadow = continued_in_shadow(services, version, job, recorded, runs)
    if shadow is None:
        bars = _bars_of(services, job, runs, result)
        facts = recorded.record
        growth = None
    else:
        bars = shadow.bars
        facts = shadow.facts
        growth = shadow.growth
        bars = bars if result.terms is None else bars.under(result.terms.gap_rules)
        runs = shadow.runs
    rules = version_execution(services.ledger, version, services.settings.execution.rules)
    terms = market_terms(services.home_terms, bars, rules)
    settle_costs(services, list(terms), bars.calendar)
    policy = services.policy(version.model_id, version.symbol)
    backtests = backtest_seeds(bars, runs, terms, policy.criteria.seed_quantile)
    plan = services.settings.walk_forward if result.terms is None else result.terms.walk_forward
    evaluation = evaluation_of(backtests, bars, runs, terms, baseline_sizer(version.params), plan)
    fitted = _fitted(services, version, recorded)
    evaluation = replace(evaluation, fitted=fitted, record=facts)
    verdict = verdict_on(services, version, evaluation, policy, until=result.created_at, growth=growth)
    judged_under = recorded_terms(evaluation, plan)
    return Judgement(verdict, cost_sentence(judged_under), judged_under.digest, evidence.digest)


def out_of_sample_returns(
    services: Services, version: ModelVersion, bars: Bars | Panel, terms: Mapping[str, MarketTerms]
) -> Floats | None:
    """Net returns by bar of `out_of_sample_backtest`; None as there."""
    bars_and_backtest = out_of_sample_backtest(services, version, bars, terms)
    return None if bars_and_backtest is None else bars_and_backtest[1].returns


def out_of_sample_backtest(
    services: Services, version: ModelVersion, bars: Bars | Panel, terms: Mapping[str, MarketTerms]
) -> tuple[Bars, Backtest] | None:
    """Bars and backtest of the stored out-of-sample positions that were judged, under given terms; of a pool,
    the common axis and the portfolio.

    None for a version without stored positions, or whose bars are stored no more.

    Args:
        bars: all bars of the version's market, or of the members of a pool.
        terms: terms of trading by symbol.
    """
    try:
        result, _ = services.ledger.evaluation(version.model_id, version.version)
        stored = services.ledger.stored_evidence(result.id)
        if stored is None:
            return None
        quantile = services.policy(version.model_id, version.symbol).criteria.seed_quantile
        backtests = backtest_seeds(bars, unpack(stored.content), terms, quantile)
    except (NotFound, EvidenceChanged):
        return None
    return backtests.axis, backtests.results[backtests.judged]


def out_of_sample_positions(services: Services, version: ModelVersion, symbol: str) -> Floats | None:
    """Stored out-of-sample positions of the first seed on a market, by bar; None for a version without."""
    try:
        result, _ = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None
    stored = services.ledger.stored_evidence(result.id)
    runs = () if stored is None else unpack(stored.content).markets
    return next((each.positions[0] for each in runs if each.symbol == symbol), None)


def _fitted(services: Services, version: ModelVersion, recorded: Verdict) -> FittedModel:
    """Facts about the registered model; without the activity where MLflow has no bundle, which refuses a
    promotion by itself."""
    measured = None
    with contextlib.suppress(RegistryUnavailable), services.registry.fetched(version.model_path) as bundle:
        measured = activity.read(bundle)
    return FittedModel(measured, skill_of(version.train_metrics), recorded.folds)


def _bars_of(
    services: Services, job: TrainingJob, runs: OutOfSampleRuns, result: EvaluationResult
) -> Bars | Panel:
    """Bars of the training, or the whole snapshot where the positions begin earlier.

    Raises:
        UnknownSeries: the bars are no longer stored.
        EvidenceChanged: the evidence names other markets than the job.
    """
    if {each.symbol for each in runs.markets} != set(job.symbols or (job.symbol,)):
        raise EvidenceChanged(f"The stored positions of job {job.id} are of other markets: retrain.")
    bars: Bars | Panel
    if job.symbols:
        bars = pools.fetch_panel(services, job)
    else:
        span = job.dataset_span_days
        bars = services.market.bars(
            job.symbol, job.timeframe, span, job.data_snapshot, closed_by=job.created_at
        )
    if min(int(each.time[0]) for each in runs.markets if len(each.time)) < bars.time[0]:
        bars = pools.whole_bars(services, job)
    return bars if result.terms is None else bars.under(result.terms.gap_rules)
