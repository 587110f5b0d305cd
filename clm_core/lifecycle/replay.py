"""Replay: a stretch of the past under the rules of continuous learning, by the code of the present.

A replay has a new home with an empty ledger and registry, and a clock put forward from pass to pass. At each
pass, due retrains ask the intake and train, the shadow pass records positions and decides, and the watch
judges the version in production and requests retrains: the calls of `clm up`. Bars that close after the clock
are never read.

Passes are hourly, as under `clm up`, or daily. The pass of a day stands for those of the hours before: the
shadow decides at the first pass of a day anyway; a hard stop, and a retrain requested by the watch, come up
to a day later. Trainings are stored by the digest of the inputs: policies share a training, and an
interrupted replay starts over without training again.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from time import process_time
from uuid import uuid4

import numpy as np

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.backtest.tearsheet import write_sections
from clm_core.backtest.terms import MarketTerms, buy_and_hold
from clm_core.decisions.gate_policy import load_document
from clm_core.domain.actors import Actor
from clm_core.domain.errors import CLMError, NotEnoughBars
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.kinds import model_id
from clm_core.domain.measures import finite_or_none
from clm_core.domain.operation_settings import PolicySource
from clm_core.domain.progress import Announce
from clm_core.domain.promotions import Promotion, PromotionKind
from clm_core.domain.replays import (
    WORLD_DAYS,
    KnownCourse,
    PolicyReplay,
    ReplayCurve,
    ReplayEvent,
    ReplayEventKind,
    ReplayFigures,
    ReplayRequest,
    ReplayResult,
    TriggerWorth,
)
from clm_core.domain.shadow_decisions import ShadowAction
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.domain.training_settings import TrainingPlace
from clm_core.domain.triggers import Reply
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role, TriggerReason
from clm_core.evidence.bootstrap import difference_interval
from clm_core.explain.replay_sections import replay_sections
from clm_core.lifecycle import shadow_decisions, watch
from clm_core.lifecycle.paper_record import positions_from
from clm_core.lifecycle.replay_homes import fresh_home, own_folder
from clm_core.lifecycle.replay_truth import ENDING, KnownReplay
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.worlds import KnownMarket, known_market
from clm_core.models import catalog
from clm_core.operations.passes import attempt
from clm_core.retraining import jobs, resume, steps
from clm_core.services import Replayed, Services, open_services
from clm_core.settings import Settings
from clm_core.triggers import intake

FOLDER = "replays"
TRAININGS = "trainings"
SECONDS = "processor-seconds"
"""File beside the stored results of a training."""
PASS_DELAY = timedelta(seconds=5)
"""Time from midnight to the passes, after the close of the last bar of the day before."""
RETRAIN_TAKES = timedelta(minutes=1)
"""Time by which a retrain puts the clock forward: two versions of a minute have two labels."""
MAX_MISSING = timedelta(days=7)
"""Time without bars at the end of a replay, as over holidays."""
CONFIDENCE = 0.95
RESAMPLES = 2000
SCHEDULE = Actor(name="schedule", role=Role.OPERATOR)
WORLD_SOURCE = "a world of clm replay"
TradedTime = tuple[str, datetime, datetime]
"""Label of a version, and begin and end of the time of its positions."""
FittedFold = tuple[int, datetime, datetime]
"""Number of the seed, and open times of the first and the last training bar."""


def run(settings: Settings, market: MarketData, request: ReplayRequest, announce: Announce) -> ReplayResult:
    """Replay under each policy in turn.

    Args:
        settings: settings of the installation; the replay has the same costs, execution and walk-forward.

    Raises:
        UnknownSeries: no source has the bars.
        NotEnoughBars: the bars do not cover the days, or are too few before the start for a training.
        PolicyError: a policy cannot be read.
        InvalidTrainingParams: a parameter is unknown or out of range.
    """
    folder = settings.home / FOLDER
    # whatever is refused is refused before a database is made and a year is replayed under another policy
    require_possible(settings, market, request)
    trainings = folder / TRAININGS
    trainings.mkdir(parents=True, exist_ok=True)
    count = len(request.policies)

    def announce_of(number: int) -> Announce:
        return lambda step, share: announce(step, (number + share) / count)

    with contextlib.ExitStack() as stack:
        world = None if request.world is None else _world(request)
        if world is not None:
            market = stack.enter_context(_stored(folder, world))
        policies = [
            _replay_policy(
                settings,
                Replayed(clock=_Clock(_midnight(request, 0)), market=market, trainings=trainings),
                request,
                policy,
                announce_of(number),
                world,
            )
            for number, policy in enumerate(request.policies)
        ]
    return ReplayResult(request=request, days=tuple(_days(request)), policies=tuple(policies))


def require_possible(settings: Settings, market: MarketData, request: ReplayRequest) -> None:
    """Refuse a replay that cannot begin.

    Raises:
        UnknownSeries: no source has the bars.
        NotEnoughBars: the bars do not cover the days.
        PolicyError: a policy cannot be read.
        InvalidTrainingParams: a parameter is unknown or out of range.
    """
    for policy in request.policies:
        source = settings.policy if policy is None else _source(policy)
        load_document(source.file, source.preset)
    catalog.requested_params(
        request.model_type, request.training_params, request.plugin, settings.execution.rules
    )
    if request.symbol is not None:
        until = _midnight(request, request.days)
        _require_days(market.bars(request.symbol, request.timeframe, closed_by=until), request)


def _world(request: ReplayRequest) -> KnownMarket:
    assert request.world is not None
    change = datetime.combine(request.change, time(), UTC)
    n_bars = 24 * (WORLD_DAYS + request.days)
    return known_market(request.world, request.world_seed, _midnight(request, -WORLD_DAYS), n_bars, change)


@contextlib.contextmanager
def _stored(folder: Path, world: KnownMarket) -> Iterator[MarketData]:
    """The bars of a world as the market of a home, for the time of the block."""
    with own_folder(folder) as home:
        newest = world.bars.end.to_pydatetime() + timedelta(seconds=world.bars.timeframe.seconds)
        SeriesStore(home / "data").add(world.bars, WORLD_SOURCE, newest)
        yield MarketData(home)


def write_page(home: Path, result: ReplayResult) -> Path:
    """Write the page of a replay with curves and time line, below the reports of the home."""
    request = result.request
    name = f"{model_id(request.kind, request.market, request.timeframe)}-{result.digest[:12]}"
    days = f"{request.start} to {request.end - timedelta(days=1)}"
    by = f"{request.passes} passes, by the code of the present"
    subtitle = f"{days}, {by}. Digest {result.digest[:12]}"
    title = f"Replay of {request.kind} on {request.market} {request.timeframe}"
    path = home / "reports" / "replays" / f"{name}.html"
    return write_sections(path, title, "", subtitle, replay_sections(result))


def _require_days(bars: Bars, request: ReplayRequest) -> None:
    start = _midnight(request, 0)
    end = _midnight(request, request.days)
    is_within = bars.start.to_pydatetime() < start and bars.end.to_pydatetime() >= end - MAX_MISSING
    if not is_within:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe} has bars from {bars.start:%Y-%m-%d} to {bars.end:%Y-%m-%d}, and "
            f"the replay goes from {start:%Y-%m-%d} to {end:%Y-%m-%d}: name days within the bars."
        )


class _Clock:
    """Clock that stands still between two settings."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def _replay_policy(
    settings: Settings,
    replayed: Replayed,
    request: ReplayRequest,
    policy: str | None,
    announce: Announce,
    world: KnownMarket | None,
) -> PolicyReplay:
    name = policy or load_document(settings.policy.file, settings.policy.preset).preset
    changes = {
        "database_url": None,
        "storage": StorageSettings(),
        "tracing": TracingSettings(),
        "training": settings.training.model_copy(update={"where": TrainingPlace.INLINE}),
        "policy": settings.policy if policy is None else _source(policy),
    }
    with fresh_home(settings, settings.home / FOLDER) as home:
        own = settings.model_copy(update={"home": home, **changes})
        with open_services(own, replayed=replayed) as services:
            course = _Course(services, request, name, world)
            course.run(announce)
            return course.result()


def _source(policy: str) -> PolicySource:
    return PolicySource(file=Path(policy)) if policy.endswith(".toml") else PolicySource(preset=policy)


def _midnight(request: ReplayRequest, days: int) -> datetime:
    return datetime.combine(request.start, time(), UTC) + timedelta(days=days)


def _days(request: ReplayRequest) -> Iterator[datetime]:
    return (_midnight(request, day + 1) for day in range(request.days))


@dataclass
class _Course:
    """A replay under one policy."""

    services: Services
    request: ReplayRequest
    policy: str
    world: KnownMarket | None
    events: list[ReplayEvent] = field(default_factory=list)
    retrained: list["_Retrained"] = field(default_factory=list)
    """Retrains, in order."""
    reported: set[str] = field(default_factory=set)
    """Problems reported before."""
    changes: int = 0
    """Number of changes of production reported before."""

    @property
    def model_id(self) -> str:
        return self._training().model_id

    @property
    def versions(self) -> list[ModelVersion]:
        return [each.version for each in self.retrained]

    @property
    def end(self) -> datetime:
        return _midnight(self.request, self.request.days)

    @property
    def clock(self) -> _Clock:
        assert self.services.replayed is not None
        clock = self.services.replayed.clock
        assert isinstance(clock, _Clock)
        return clock

    def run(self, announce: Announce) -> None:
        every = self._every()
        due = start = _midnight(self.request, 0)
        per_day = 24 // self.request.passes.hours
        count = per_day * self.request.days
        for number in range(count):
            moment = start + timedelta(days=number / per_day)
            # a retrain may have put the clock further
            self.clock.now = max(self.clock.now, moment + PASS_DELAY)
            announce(f"{self.policy} {moment:%Y-%m-%d}, versions: {len(self.versions)}", number / count)
            if moment >= due:
                due += every
                self._scheduled_retrain(is_first=number == 0)
            self._pass()
            self._train_waiting()
            self._tell_changes()
        # the last bars have closed: what they decide belongs to the replay
        self.clock.now = max(self.clock.now, self.end + PASS_DELAY)
        self._pass()
        self._tell_changes()

    def _pass(self) -> None:
        self._shadow()
        self._watch()

    def result(self) -> PolicyReplay:
        committed = self.services.ledger.promotions.committed(self.model_id)
        bars = self.services.market.bars(self.request.market, self.request.timeframe, closed_by=self.end)
        stints = list(_stints(committed, self.end))
        first = bars.row_closed_after(_midnight(self.request, 0))
        terms = self.services.version_terms(self.versions[0], bars.calendar)
        production = self._backtest(terms, bars, stints, first)
        return PolicyReplay(
            policy=self.policy,
            events=tuple(self.events),
            curves=tuple(self._curves(bars, first, terms, production)),
            retrains=len(self.versions),
            passed=sum(each.verdict.decision is Decision.PASS for each in self.retrained),
            promotions=sum(each.kind is PromotionKind.PROMOTION for each in committed),
            rollbacks=sum(each.kind in ENDING for each in committed),
            days_in_production=sum((until - since) / timedelta(days=1) for _, since, until in stints),
            trials=sum(each.trials for each in self.retrained),
            worth=tuple(self._worths(bars, first, terms, stints, production)),
            known=None if self.world is None else self._known(self.world, bars, terms, committed, production),
        )

    def _known(
        self,
        world: KnownMarket,
        bars: Bars,
        terms: MarketTerms,
        committed: Sequence[Promotion],
        production: Backtest,
    ) -> KnownCourse:
        changes = self.request.world is not None and self.request.world.changes
        trained_at = {each.version: each.created_at for each in self.versions}
        known = KnownReplay(
            world=world,
            terms=terms,
            committed=committed,
            trained_at=trained_at.__getitem__,
            positions=lambda version, since, until: self._positions(bars, [(version, since, until)]),
            days=tuple(_days(self.request)),
            change=datetime.combine(self.request.change, time(), UTC) if changes else None,
        )
        return known.course(production, bars.row_closed_after(_midnight(self.request, 0)))

    def _every(self) -> timedelta:
        if self.request.every_days is not None:
            return timedelta(days=self.request.every_days)
        every = catalog.find_kind(*self.request.kind).retrain_every
        return timedelta(days=7) if every is None else every

    def _training(self) -> RetrainRequest:
        """Request of the schedule."""
        span = self.request.dataset_span_days
        if span is None and self.world is not None:
            span = WORLD_DAYS
        return RetrainRequest(
            model_type=self.request.model_type,
            plugin=self.request.plugin,
            symbol=self.request.market,
            timeframe=self.request.timeframe,
            training_params=self.request.training_params,
            seed=self.request.seed,
            trigger_reason=TriggerReason.PERIODIC,
            requested_by=SCHEDULE.name,
            **({} if span is None else {"dataset_span_days": span}),
        )

    def _record_event(
        self,
        kind: ReplayEventKind,
        version: str,
        sentence: str,
        outcome: str = "",
        reason: TriggerReason | None = None,
    ) -> None:
        self.events.append(
            ReplayEvent(
                at=self.services.clock(),
                kind=kind,
                version=version,
                sentence=sentence,
                outcome=outcome,
                reason=reason,
            )
        )

    def _tell_problems(self, problems: Sequence[str]) -> None:
        for each in problems:
            if each not in self.reported:
                self.reported.add(each)
                self._record_event(ReplayEventKind.PROBLEM, "", each)

    def _scheduled_retrain(self, is_first: bool) -> None:
        answer = intake.submit_and_claim(self.services, self._training(), SCHEDULE.name, uuid4(), SCHEDULE)
        if isinstance(answer, TrainingJob):
            self._train(answer, is_first)
        else:
            sentence = f"periodic retrain {answer.reply}: {answer.because}"
            self._record_event(ReplayEventKind.REQUEST, "", sentence, answer.reply, TriggerReason.PERIODIC)

    def _train_waiting(self) -> None:
        """Train the jobs requested by the watch, as a worker does within a minute."""
        for job in self.services.ledger.triggers.startable(self.services.clock()):
            self._train(job, is_first=False)

    def _train(self, job: TrainingJob, is_first: bool) -> None:
        """
        Raises:
            CLMError: the first training of a replay failed, and so would all others.
        """
        try:
            retrained = _retrained(self.services, job)
        except CLMError as error:
            if is_first:
                raise
            self._tell_problems([f"{job.trigger_reason} retrain failed: {error}"])
            return
        version = retrained.version
        verdict = retrained.verdict
        self.retrained.append(retrained)
        self._record_event(
            ReplayEventKind.RETRAIN,
            version.version,
            f"{job.trigger_reason}: {_in_words(verdict)}",
            verdict.decision,
            job.trigger_reason,
        )
        decision, problems = attempt(
            version.version, partial(shadow_decisions.decide_on_refresh, self.services, version)
        )
        self._tell_problems(problems)
        if decision is not None:
            self._record_event(ReplayEventKind.SHADOW, version.version, decision.sentence, decision.action)
        self.clock.now += RETRAIN_TAKES

    def _shadow(self) -> None:
        report = shadow_decisions.run(self.services)
        for each in report.versions:
            if each.decision is not None and each.decision.action is not ShadowAction.CONTINUE:
                decision = each.decision
                self._record_event(ReplayEventKind.SHADOW, each.version, decision.sentence, decision.action)
        self._tell_problems(report.problems)

    def _watch(self) -> None:
        report = watch.run(self.services)
        for each in report.models:
            for answer in each.asked:
                if answer.reply is Reply.ACCEPTED:
                    reason = answer.request.training.trigger_reason
                    sentence = f"{reason} retrain: {answer.because}"
                    self._record_event(ReplayEventKind.REQUEST, each.version, sentence, answer.reply, reason)
        self._tell_problems(report.problems)

    def _tell_changes(self) -> None:
        committed = self.services.ledger.promotions.committed(self.model_id)
        for change in committed[self.changes :]:
            sentence = f"{change.kind}: {change.reason}"
            self._record_event(ReplayEventKind.PRODUCTION, change.to_version or "", sentence, change.kind)
        self.changes = len(committed)

    def _worths(
        self,
        bars: Bars,
        first: int,
        terms: MarketTerms,
        stints: Sequence[TradedTime],
        production: Backtest,
    ) -> Iterator[TriggerWorth]:
        counts = Counter(each.reason for each in self.retrained)
        fits = _fits(self.retrained)
        for reason, count in counts.most_common():
            own = [each for each in self.retrained if each.reason is reason]
            labels = {each.version.version for each in own}
            verdicts = Counter(each.verdict.decision for each in own)
            its_stints = [each for each in stints if each[0] in labels]
            other = production
            if its_stints:
                other = self._backtest(terms, bars, list(_without(labels, stints)), first)
            rows = np.zeros(len(bars), dtype=bool)
            for _, since, until in its_stints:
                rows[bars.row_closed_after(since) : bars.row_closed_after(until)] = True
            yield TriggerWorth(
                reason=reason,
                retrains=count,
                passed=verdicts[Decision.PASS],
                inconclusive=verdicts[Decision.INCONCLUSIVE],
                failed=verdicts[Decision.FAIL],
                promoted=len({label for label, _, _ in its_stints}),
                days_in_production=sum((until - since) / timedelta(days=1) for _, since, until in its_stints),
                earned=_compound(production.returns[rows[first:]]),
                without=_compound(other.returns[rows[first:]]),
                fits=fits[reason],
                trials=sum(each.trials for each in own),
                seconds=sum(each.seconds for each in own),
            )

    def _curves(
        self, bars: Bars, first: int, terms: MarketTerms, production: Backtest
    ) -> Iterator[ReplayCurve]:
        traded = bars[first:]
        oldest = self.versions[0]
        ends = [*(each.created_at for each in self.versions[1:]), self.end]
        newest = [(each.version, each.created_at, end) for each, end in zip(self.versions, ends, strict=True)]
        never = [(oldest.version, oldest.created_at, ends[-1])]
        yield self._curve("production", f"versions promoted under {self.policy}", traded, production)
        for name, meaning, result in (
            ("newest", "the newest version, without a gate", self._backtest(terms, bars, newest, first)),
            ("never", "the first version, never retrained", self._backtest(terms, bars, never, first)),
            ("hold", "bought and held", buy_and_hold(terms, traded)),
        ):
            yield self._curve(name, meaning, traded, result, production)

    def _backtest(self, terms: MarketTerms, bars: Bars, stints: Sequence[TradedTime], first: int) -> Backtest:
        return terms.backtest(bars[first:], self._positions(bars, stints)[first:])

    def _positions(self, bars: Bars, stints: Sequence[TradedTime]) -> Floats:
        """Positions of the versions in the stints, flat between stints, shape (n_bars,).

        A version gets the bars closed by the end of the stint, and no later bars.
        """
        positions = np.zeros(len(bars))
        by_label = {each.version: each for each in self.versions}
        for label, since, until in stints:
            version = by_label[label]
            known = bars.closed_by(until)
            begin = known.row_closed_after(since)
            registered = known.row_closed_after(version.created_at)
            if begin < len(known):
                model = self.services.registry.load(version.model_path, version.bundle_digest)
                values, _ = positions_from(self.services, version, model, known, begin - registered)
                positions[begin : len(known)] = values
        return positions

    def _curve(
        self, name: str, meaning: str, bars: Bars, result: Backtest, production: Backtest | None = None
    ) -> ReplayCurve:
        lead = None
        if production is not None:
            rng = np.random.default_rng(self.request.seed)
            interval = difference_interval(production.returns, result.returns, CONFIDENCE, RESAMPLES, rng)
            scale = math.sqrt(bars.periods_per_year)
            if math.isfinite(interval.low) and math.isfinite(interval.high):
                lead = interval.low * scale, interval.high * scale
        closes = bars.time + bars.timeframe.nanoseconds
        ends = np.array([int(each.timestamp()) * 10**9 for each in _days(self.request)])
        rows = np.searchsorted(closes, ends, side="right") - 1
        equity = np.cumprod(1.0 + result.returns)
        figures = summarise(result, bars.periods_per_year)
        return ReplayCurve(
            name=name,
            meaning=meaning,
            figures=ReplayFigures(
                total_return=figures.total_return,
                sharpe_ratio=finite_or_none(figures.sharpe_ratio),
                max_drawdown=figures.max_drawdown,
                trades=figures.trades,
                exposure=figures.exposure,
            ),
            lead=lead,
            equity=tuple(float(equity[row]) if row >= 0 else 1.0 for row in rows),
        )


@dataclass(frozen=True)
class _Retrained:
    """A retrain with verdict and cost."""

    version: ModelVersion
    verdict: Verdict
    reason: TriggerReason
    folds: frozenset[FittedFold]
    """Folds of the walk-forward, with those that an earlier retrain fitted."""
    trials: int
    """Backtests counted as trials."""
    seconds: float
    """Processor time of the training, when first done."""


def _retrained(services: Services, job: TrainingJob) -> _Retrained:
    """The steps of a retrain, without tear sheet and pages."""
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        begun = process_time()
        trained = steps.train(services, job, bars)
        seconds = _first_seconds(services, job, process_time() - begun)
        version = steps.register(services, lease, job, bars, trained)
        evaluation = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        verdict = steps.judge(services, lease, version, evaluation)
    return _Retrained(
        version=version,
        verdict=verdict,
        reason=job.trigger_reason,
        folds=frozenset(
            (number, fold.train_start, fold.train_end)
            for number, run in enumerate(trained.out_of_sample)
            for fold in run.folds
        ),
        trials=len(services.ledger.trials.of_job(job.id)),
        seconds=seconds,
    )


def _fits(retrained: Sequence[_Retrained]) -> Counter[TriggerReason]:
    """Number of models fitted for each reason: final models, and folds that no earlier retrain fitted."""
    fits = Counter[TriggerReason]()
    known = set[FittedFold]()
    for each in retrained:
        fits[each.reason] += 1 + len(each.folds - known)
        known |= each.folds
    return fits


def _first_seconds(services: Services, job: TrainingJob, seconds: float) -> float:
    """Processor time of a training when first done, kept beside the stored results."""
    assert services.replayed is not None
    key = (resume.workspace(services.work, job.id) / resume.KEY).read_text()
    file = services.replayed.trainings / key / SECONDS
    if not file.exists():
        file.write_text(f"{seconds:.3f}")
    return float(file.read_text())


def _in_words(verdict: Verdict) -> str:
    """Headline of a verdict with the names of the missed checks."""
    missed = ", ".join(each.name for each in verdict.missed)
    return f"{verdict.headline}: {missed}" if missed else verdict.headline


def _stints(committed: Sequence[Promotion], end: datetime) -> Iterator[TradedTime]:
    """Label, begin and end of each time in production."""
    ends = [*(each.at for each in committed[1:]), end][: len(committed)]
    for change, until in zip(committed, ends, strict=True):
        if change.to_version is not None:
            yield change.to_version, change.at, until


def _without(labels: Collection[str], stints: Sequence[TradedTime]) -> Iterator[TradedTime]:
    """Times in production with the version before in place of some versions, without a gap between."""
    before: str | None = None
    ended: datetime | None = None
    for label, since, until in stints:
        if label not in labels:
            before = label
        elif since != ended:
            # after a halt, no version was left to stay in production
            before = None
        if before is not None:
            yield before, since, until
        ended = until


def _compound(returns: Floats) -> float:
    return float(np.prod(1.0 + returns) - 1.0)
