import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from clm_core.cli import replay as command
from clm_core.cli.app import app
from clm_core.domain.errors import InvalidTrainingParams, NotEnoughBars, PolicyError, UnknownSeries
from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.replays import ReplayEventKind, ReplayRequest, ReplayResult
from clm_core.domain.vocabulary import ModelType, PassInterval, TriggerReason
from clm_core.explain.replay_sections import headline, replay_sections
from clm_core.ledger.store import Ledger
from clm_core.lifecycle import replay, replay_homes
from clm_core.lifecycle.watch import WatchReport
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Timeframe
from clm_core.market.worlds import TOO_LATE
from clm_core.retraining import jobs, resume, steps, training
from clm_core.services import Services
from clm_core.settings import Settings

KILLED = 10 if "CHAOS_REPETITIONS" in os.environ else 1
"""Number of replays killed."""
REQUEST = ReplayRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    start=date(2018, 7, 1),
    end=date(2018, 7, 9),
    dataset_span_days=60,
    training_params={"rounds": 2, "label": "volatility_scaled_return", "horizon": 12, "calibrate": False},
)

NAMED = REQUEST.model_copy(update={"compare": ("never", "newest")})


class Stopped(Exception):
    """A replay ended from outside."""


def run(home: Path, request: ReplayRequest = REQUEST, stop_at: float = 2.0) -> ReplayResult:
    def announce(step: str, share: float) -> None:
        if share >= stop_at:
            raise Stopped

    return replay.run(Settings(home=home, database_url=None), MarketData(home), request, announce)


def add_noise_after(home: Path, until: datetime) -> None:
    """Store the bars of BTCUSD with noise in place of every bar that closes after a moment."""
    bars = MarketData(home).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    first = bars.row_closed_after(until)
    columns = {name: getattr(bars, name).copy() for name in FIELDS}
    noise = np.exp(np.random.default_rng(1).normal(0.0, 0.05, len(bars) - first).cumsum())
    for name in ("open", "high", "low", "close"):
        columns[name][first:] = bars.close[first] * noise
    noisy = Bars("BTCUSD", Timeframe.H1, bars.calendar, bars.time.copy(), **columns)
    SeriesStore(home / "data").add(noisy, "tests", datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the one template of databases for the replays of all tests."""
    folder = tmp_path_factory.mktemp("templates")
    template = replay_homes._template
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_homes, "_template", lambda _: template(folder))
        yield folder


@dataclass(frozen=True)
class Undisturbed:
    home: Path
    result: ReplayResult
    verdicts: list[Verdict]
    """Verdicts on the retrains, in their order."""
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(homes: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = tmp_path_factory.mktemp("replay")
    retrained = replay._retrained
    verdicts = list[Verdict]()

    def noted(services: Services, job: TrainingJob) -> replay._Retrained:
        result = retrained(services, job)
        verdicts.append(result.verdict)
        return result

    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "_retrained", noted)
        result = run(home)
    return Undisturbed(home, result, verdicts, time.monotonic() - begun)


def test_each_retrain_of_the_schedule_is_judged_and_the_curves_cover_the_days(
    undisturbed: Undisturbed,
) -> None:
    [replayed] = undisturbed.result.policies
    retrains = [each for each in replayed.events if each.kind is ReplayEventKind.RETRAIN]
    assert [each.at.date() for each in retrains] == [date(2018, 7, 1), date(2018, 7, 8)]
    assert replayed.policy == "strict"
    assert replayed.retrains == 2
    assert replayed.trials >= 2
    assert [each.name for each in replayed.curves] == ["production", "newest", "never", "hold"]
    assert {len(each.equity) for each in replayed.curves} == {REQUEST.days}
    production, newest, _, hold = replayed.curves
    assert production.figures.exposure == 0.0
    assert newest.figures.exposure > 0.0
    bars = MarketData(undisturbed.home).bars("BTCUSD", "1h", closed_by=datetime(2018, 7, 9, tzinfo=UTC))
    held = bars.close[-1] / bars.open[bars.row_closed_after(datetime(2018, 7, 1, tzinfo=UTC))]
    assert hold.equity[-1] == pytest.approx(held, rel=0.01)


def test_nothing_is_left_behind_but_the_trainings(undisturbed: Undisturbed) -> None:
    left = {each.name for each in (undisturbed.home / "replays").iterdir()}
    assert left == {"gate", "trainings"}


def test_databases_are_made_once_and_those_of_another_release_are_deleted(
    homes: Path, undisturbed: Undisturbed
) -> None:
    [template] = homes.iterdir()
    assert template.name.startswith(replay_homes.TEMPLATE)
    former = homes / f"{replay_homes.TEMPLATE}0"
    template.rename(former)
    with replay_homes.fresh_home(Settings(home=homes), homes) as home:
        assert (home / "postgres" / "PG_VERSION").read_text() == "18\n"
    assert {each.name for each in homes.iterdir()} == {"gate", template.name}


def test_an_interrupted_replay_on_bars_with_noise_after_its_end_has_the_same_digest(
    homes: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    add_noise_after(tmp_path, datetime(2018, 7, 9, tzinfo=UTC))
    with pytest.raises(Stopped):
        run(tmp_path, stop_at=0.5)
    trainings = tmp_path / "replays" / "trainings"
    kept = {each.name for each in trainings.iterdir()} - {"folds"}
    assert len(kept) == 1
    assert run(tmp_path).digest == undisturbed.result.digest
    assert kept < {each.name for each in trainings.iterdir()}

    # nor does the noise reach the days before it in a replay that goes on
    [longer] = run(tmp_path, REQUEST.model_copy(update={"end": date(2018, 7, 16)})).policies
    [replayed] = undisturbed.result.policies
    before = [each for each in longer.events if each.at < datetime(2018, 7, 9, tzinfo=UTC)]
    assert before == [each for each in replayed.events if each.at < datetime(2018, 7, 9, tzinfo=UTC)]
    # a backtest pays for the end of its last position
    days = REQUEST.days - 1
    for curve, other in zip(longer.curves, replayed.curves, strict=True):
        assert curve.equity[:days] == other.equity[:days]


def test_retrains_of_the_present_at_the_same_moments_have_the_same_bundles_positions_and_verdicts(
    clm: Services, engine: Engine, undisturbed: Undisturbed
) -> None:
    """The steps of a retrain, without a replay, on a clock set to the moments of the schedule."""
    request = RetrainRequest(
        model_type=REQUEST.model_type,
        symbol=REQUEST.symbol,
        dataset_span_days=60,
        training_params=REQUEST.training_params,
        trigger_reason=TriggerReason.PERIODIC,
        requested_by="schedule",
    )
    for day, expected in zip((1, 8), undisturbed.verdicts, strict=True):
        moment = datetime(2018, 7, day, 0, 0, 5, tzinfo=UTC)
        ledger = Ledger(engine, lambda moment=moment: moment)
        present = replace(
            clm, ledger=ledger, clock=ledger.now, open_market=lambda: MarketData(undisturbed.home)
        )
        job = ledger.create_job(jobs.new_job(present, request))
        with jobs.running(present, job) as lease:
            bars = steps.fetch_bars(present, job)
            trained = steps.train(present, job, bars)
            key = (resume.workspace(present.work, job.id) / resume.KEY).read_text()
            version = steps.register(present, lease, job, bars, trained)
            evaluation = steps.evaluate_out_of_sample(present, lease, job, bars, trained)
            verdict = steps.judge(present, lease, version, evaluation)
        stored = undisturbed.home / "replays" / "trainings" / key
        assert json.loads((stored / training.RESULTS).read_text())["bundle_digest"] == trained.bundle_digest
        with np.load(stored / training.OUT_OF_SAMPLE) as arrays:
            np.testing.assert_array_equal(arrays["positions0"], trained.out_of_sample[0].positions)
        assert verdict == expected


def test_hourly_passes_change_nothing_while_nothing_is_in_production(
    undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = list[datetime]()
    watch = replay.watch.run

    def noted(services: Services) -> WatchReport:
        moments.append(services.clock())
        return watch(services)

    monkeypatch.setattr(replay.watch, "run", noted)
    hourly = run(undisturbed.home, REQUEST.model_copy(update={"passes": PassInterval.HOURLY}))
    assert hourly.digest == undisturbed.result.digest
    start = datetime(2018, 7, 1, tzinfo=UTC)
    assert [(each - start) // timedelta(hours=1) for each in moments] == [*range(24 * REQUEST.days + 1)]


@pytest.mark.parametrize("repetition", range(KILLED))
def test_a_replay_killed_at_a_random_moment_ends_with_the_digest_of_an_undisturbed_one(
    repetition: int, homes: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    share = random.Random(10 + repetition).random()
    if (process := os.fork()) == 0:
        try:
            run(tmp_path)
        finally:
            os._exit(0)
    time.sleep(share * undisturbed.seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    servers = [int(each.read_text().split()[0]) for each in tmp_path.glob("replays/home-*/postgres/*.pid")]
    assert run(tmp_path).digest == undisturbed.result.digest
    assert {each.name for each in (tmp_path / "replays").iterdir()} == {"gate", "trainings"}
    stored = {each.name for each in (tmp_path / "replays" / "trainings").iterdir()}
    assert stored == {each.name for each in (undisturbed.home / "replays" / "trainings").iterdir()}
    for server in servers:
        with pytest.raises(ProcessLookupError):
            os.kill(server, 0)


def test_policies_without_a_gate_are_curves_beside_the_others(
    undisturbed: Undisturbed,
) -> None:
    named = undisturbed.result.model_copy(update={"request": NAMED})
    assert NAMED.policies == (None,)
    beside = replay_sections(named)[0]
    assert beside.sentences[-1].startswith("Without a gate: never and newest")
    assert [row[0] for row in beside.tables[0].rows] == ["strict", "never", "newest"]


def test_compute_is_counted_and_the_seconds_are_not_part_of_the_digest(
    undisturbed: Undisturbed,
) -> None:
    [replayed] = undisturbed.result.policies
    [worth] = replayed.worth
    assert worth.trials == replayed.trials
    # the second retrain, a week later, fits the newest fold and the final model
    assert worth.fits > worth.retrains
    assert worth.seconds > 0.0
    slower = worth.model_copy(update={"seconds": 1e9})
    assert replayed.model_copy(update={"worth": (slower,)}).digest == replayed.digest


def test_without_a_trigger_the_version_before_stays_until_nothing_served() -> None:
    days = [datetime(2020, 1, day, tzinfo=UTC) for day in range(1, 9)]
    stints = [("a", days[0], days[1]), ("b", days[1], days[2]), ("c", days[2], days[3])]
    stints += [("d", days[4], days[5]), ("e", days[5], days[6])]
    assert list(replay._without({"b", "d"}, stints)) == [
        ("a", days[0], days[1]),
        ("a", days[1], days[2]),
        ("c", days[2], days[3]),
        ("e", days[5], days[6]),
    ]


def test_a_world_is_replayed_with_its_own_bars_and_judged_by_its_knowledge(
    homes: Path, tmp_path: Path
) -> None:
    changes = {"symbol": None, "world": "dying", "dataset_span_days": 60}
    request = ReplayRequest.model_validate(REQUEST.model_dump() | changes | {"end": date(2018, 7, 8)})
    result = run(tmp_path, request)
    known = result.policies[0].known
    assert known is not None
    assert known.services == ()
    assert [known.edge[0], known.edge[-1]] == [1.0, -TOO_LATE]
    assert {each.name for each in (tmp_path / "replays").iterdir()} == {"gate", "trainings"}
    [section] = replay_sections(result)
    assert section.sentences[1].startswith("The world knows: false promotions 0 of 0")
    assert section.charts[-1].name == "known"


def test_the_page_shows_each_policy_with_curves_and_events(undisturbed: Undisturbed) -> None:
    result = undisturbed.result
    both = result.model_copy(update={"policies": (*result.policies, *result.policies)})
    assert [each.name for each in replay_sections(result)] == ["policy-0"]
    assert replay_sections(both)[0].name == "policies"
    [section] = replay_sections(result)
    assert "retrains: 2, passed the gate: 0" in headline(result.policies[0])
    assert [row[0] for row in section.tables[0].rows] == ["production", "newest", "never", "hold"]
    assert section.tables[1].rows[0][:4] == ("periodic", "2", "0, 0, 2", "0")
    assert [each.name for each in section.charts] == ["equity", "time-line"]
    [[first], [second]] = section.tables[2].rows
    assert first.startswith("2018-07-01 00:00 retrain v20180701_000005: periodic: FAIL")
    assert second.startswith("2018-07-08 00:00 retrain v20180708_000005: periodic: FAIL")


def test_the_command_prints_the_results_beside_a_page(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    monkeypatch.setattr(command, "_replayed", lambda settings, request: undisturbed.result)
    words = "replay --model lightgbm --symbol BTCUSD --from 2018-07-01 --to 2018-07-09 --page --json"
    printed = CliRunner().invoke(app, words.split())
    assert printed.exit_code == 0, printed.output
    answer = json.loads(printed.stdout)
    assert answer["digest"] == undisturbed.result.digest
    assert Path(answer["page"]).exists()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"symbol": "NOTHING"}, UnknownSeries, "NOTHING"),
        ({"end": date(2030, 1, 1)}, NotEnoughBars, "name days within the bars"),
        ({"start": date(2017, 7, 1)}, NotEnoughBars, "name days within the bars"),
        ({"compare": ("no such preset",)}, PolicyError, "no such preset"),
        ({"training_params": {"rouns": 2}}, InvalidTrainingParams, "rouns"),
    ],
    ids=["no market", "after the bars", "before the bars", "unknown policy", "unknown parameter"],
)
def test_an_impossible_replay_is_refused_before_a_database_is_made(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(tmp_path, REQUEST.model_copy(update=changes))
    assert not list((tmp_path / "replays").glob("home-*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"world": "dying"}, "either a symbol or a world"),
        ({"symbol": None}, "either a symbol or a world"),
        ({"symbol": None, "world": "none", "timeframe": "1d"}, "hourly bars"),
        ({"symbol": None, "world": "none", "world_change": date(2018, 7, 4)}, "dying and moving"),
        ({"policy": "never"}, "has no gate"),
    ],
    ids=["both", "neither", "days", "change of none", "policy without a gate"],
)
def test_a_contradictory_request_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReplayRequest.model_validate(REQUEST.model_dump() | changes)


def test_a_replay_of_less_than_a_week_is_refused() -> None:
    with pytest.raises(ValueError, match="7 days or more"):
        ReplayRequest.model_validate(REQUEST.model_dump() | {"end": date(2018, 7, 3)})
