"""Shadow testing bar by bar: real versions, ledger, registry and bars, and a moved clock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import promoting
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotFound, PassIncomplete
from clm_core.domain.shadows import ShadowRecord
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.ledger.shadows import ShadowStore
from clm_core.lifecycle import shadow
from clm_core.lifecycle.paper_record import OVERLAP
from clm_core.lifecycle.shadow import ShadowedVersion, ShadowReport
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Timeframe
from clm_core.market.validation import Examined
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.platform.prefect_server import load_flow
from clm_core.services import Services, open_ledger

OPERATOR = Actor(name="ada", role=Role.OPERATOR)
TRAINED = 1000
NEW = 300
"""Bars of the training, and those that come after it."""
MINUTE = timedelta(minutes=1)


class World:
    """A separate market with a model, whose versions are registered at any time."""

    def __init__(
        self, services: Services, model_id: str, make_version: Callable[..., ModelVersion], folder: Path
    ) -> None:
        _, symbol, timeframe = model_id.split("_")
        step = Timeframe(timeframe)
        newest = services.market.bars("BTCUSD", "1h", closed_by=services.clock())[-TRAINED - NEW :]
        time = (
            newest.time[0] // step.nanoseconds * step.nanoseconds + np.arange(len(newest)) * step.nanoseconds
        )
        columns = [getattr(newest, name) for name in FIELDS]
        self.bars = Bars(symbol.upper(), step, newest.calendar, time, *columns)
        self.step = timedelta(seconds=step.seconds)
        self.model_id = model_id
        self._services = services
        self._make = make_version
        self._folder = folder
        SeriesStore(folder / "data").add(self.bars, "tests", self.when(NEW))

    def when(self, bars: int, after: timedelta = 2 * MINUTE) -> datetime:
        """Moment at a delay after the close of the n-th bar since the training."""
        closed = self.bars.index[TRAINED + bars - 1].to_pydatetime() + self.step
        return closed + after

    def services(self, bars: int, after: timedelta = 2 * MINUTE) -> Services:
        market = MarketData(self._folder)
        now = self.when(bars, after)
        return replace(self._services, open_market=lambda: market, clock=lambda: now)

    def register(self, bars: int = 0, seed: int = 1, short_memory: bool = False) -> ModelVersion:
        """A candidate registered ten minutes after the close of the n-th bar.

        Args:
            short_memory: a recipe that needs fewer bars than those of the training.
        """
        # a fit of the signs is short on every bar, which no promotion accepts
        params: dict[str, Any] = {
            "label": "volatility_scaled_return",
            "horizon": 24,
            "threshold": 0.0,
            "calibrate": False,
            "rounds": 20,
        }
        if short_memory:
            names = ("scale_half_life", "smoothing_half_life", "volatility_half_life")
            params |= {"centre_horizons": 1, "sizing": dict.fromkeys(names, 5.0) | {"anchor_bars": 24}}
        recipe = catalog.recipe(ModelType.LIGHTGBM, params, Costs())
        trained_on = self.bars[:TRAINED]
        folder = self._folder / str(seed) / "bundle"
        digest = save_bundle(recipe.fit(trained_on, seed=seed), recipe, folder, trained_on)
        stored = SimpleNamespace(folder=folder, digest=digest, bars=trained_on)
        return self._make(self.model_id, stored=stored, now=self.when(bars, 10 * MINUTE))

    def record_other_position(self, version: ModelVersion, row: int) -> None:
        """Record a position that the version does not compute, in time."""
        time = self.bars.time[TRAINED + row : TRAINED + row + 1]
        store = self._services.ledger.shadows
        store.record(version.model_id, version.version, time, np.array([0.25]), self.when(row + 1))

    def correct(self, row: int, at: datetime, *, remove: bool = False) -> None:
        """Replace 20 stored bars by bars with wild closes, or remove the first of them."""
        market = MarketData(self._folder)
        bars = self.bars[row : row + (1 if remove else 20)]
        close = bars.close * np.where(np.arange(len(bars)) % 2, 0.9, 1.1)
        wild = replace(bars, close=close, low=np.minimum(bars.low, close), high=np.maximum(bars.high, close))
        first = bars.index[0].to_pydatetime()
        last = bars.index[-1].to_pydatetime()
        offered = market.replacement(Examined(wild[:0] if remove else wild, {}, {}), first, last)
        market.replace(offered, "tests", reason="a wrong trade", actor="ada", now=self.when(NEW))
        # the store has bars of the future, which validation would refuse at the moment itself
        manifest = market.manifest(self.bars.symbol, self.bars.timeframe)
        newest = manifest.snapshots[-1].model_copy(update={"written_at": at})
        dated = manifest.model_copy(update={"snapshots": (*manifest.snapshots[:-1], newest)})
        [path] = self._folder.glob("data/*/*/manifest.json")
        path.write_text(dated.model_dump_json())

    def run(self, bars: int, after: timedelta = 2 * MINUTE, whole: bool = False) -> ShadowReport:
        return shadow.run(self.services(bars, after), self.model_id, whole=whole)

    def first_of_a_day(self) -> int:
        """Number of bars, 100 or more, after which the clock shows the first hour of a day."""
        return next(bars for bars in range(100, NEW) if self.when(bars).hour == 0)

    def bars_needed(self, version: ModelVersion) -> int:
        model = self._services.registry.load(version.model_path, version.bundle_digest)
        assert model.bars_needed is not None
        return model.bars_needed

    def written(self, version: ModelVersion) -> ShadowRecord:
        store = self._services.ledger.shadows
        return store.recorded(version.model_id, version.version, self.bars.start.to_pydatetime())

    def expected_positions(self, version: ModelVersion, bars: int) -> Floats:
        """Positions computed by the version after the first new bars."""
        model = self._services.registry.load(version.model_path, version.bundle_digest)
        return model.positions(self.bars)[TRAINED : TRAINED + bars]


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: Callable[..., ModelVersion], tmp_path: Path
) -> World:
    return World(services, model_id, make_version, tmp_path)


def only(report: ShadowReport) -> ShadowedVersion:
    assert report.problems == ()
    [version] = report.versions
    return version


def test_shadow_records_one_position_per_closed_bar_since_registration(
    world: World,
) -> None:
    version = world.register()
    none = only(world.run(0, after=30 * MINUTE))
    assert (none.figures.bars, none.newest_bar, none.new) == (0, None, 0)

    for bars in (1, 2, 3):
        seen = only(world.run(bars))
        assert (seen.new, seen.figures.bars, seen.late) == (1, bars, 0)
        assert seen.newest_bar == world.bars.index[TRAINED + bars - 1]
    again = only(world.run(3, after=3 * MINUTE))
    assert (again.new, again.figures.bars) == (0, 3)

    written = world.written(version)
    assert written.time.tolist() == world.bars.time[TRAINED : TRAINED + 3].tolist()
    assert written.position.tolist() == world.expected_positions(version, 3).tolist()


def test_positions_missed_in_an_outage_are_recorded_later_and_counted_as_late(
    world: World,
) -> None:
    version = world.register()
    world.run(1)
    seen = only(world.run(13))
    assert (seen.new, seen.figures.bars, seen.late) == (12, 13, 11)
    assert only(world.run(14)).late == 11
    assert world.written(version).position.tolist() == world.expected_positions(version, 14).tolist()
    assert "11 of 14 recorded late" in " ".join(world.run(14).summary_lines())


def test_a_pass_gives_the_model_the_bars_needed_for_the_new_bars_and_an_overlap(world: World) -> None:
    version = world.register(short_memory=True)
    bars = world.first_of_a_day()
    assert only(world.run(bars)).computed == TRAINED + bars
    needed = world.bars_needed(version)
    for new, count in ((1, bars + 1), (5, bars + 6)):
        seen = only(world.run(count))
        assert (seen.new, seen.computed) == (new, needed + OVERLAP + new - 1)
    assert only(world.run(bars + 6)).computed == 0
    assert only(world.run(bars + 6, whole=True)).computed == TRAINED + bars + 6
    assert only(world.run(bars + 24)).computed == TRAINED + bars + 24, "the first pass of the next day"
    assert world.written(version).position.tolist() == pytest.approx(
        world.expected_positions(version, bars + 24), abs=1e-9
    )


def test_a_correction_of_bars_leads_to_one_whole_check(world: World) -> None:
    version = world.register(short_memory=True)
    bars = world.first_of_a_day()
    world.run(bars)
    world.correct(TRAINED + 15, at=world.when(bars))
    assert only(world.run(bars + 1)).computed == TRAINED + bars + 1
    explained = only(world.run(bars + 1)).explained
    assert explained > 0
    seen = only(world.run(bars + 2))
    assert (seen.computed, seen.explained) == (world.bars_needed(version) + OVERLAP, explained)


def test_a_difference_lasts_over_the_passes_that_compute_new_bars_alone(world: World) -> None:
    version = world.register(short_memory=True)
    bars = world.first_of_a_day()
    world.record_other_position(version, 20)
    [problem] = world.run(bars).problems
    later = world.run(bars + 1)
    assert later.problems == (problem,)
    assert later.versions[0].computed == world.bars_needed(version) + OVERLAP


def test_a_model_that_states_no_bars_needed_is_computed_from_the_start_of_the_training(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.register(short_memory=True)
    bars = world.first_of_a_day()
    world.run(bars)
    model = services.registry.load(version.model_path, version.bundle_digest)
    monkeypatch.setattr(type(model), "bars_needed", None)
    assert only(world.run(bars + 1)).computed == TRAINED + bars + 1


def test_concurrent_passes_record_each_position_once(world: World) -> None:
    version = world.register()
    with ThreadPoolExecutor() as threads:
        seen = [only(report) for report in threads.map(world.run, [200] * 3)]
    assert sum(each.new for each in seen) == 200
    assert world.written(version).position.tolist() == world.expected_positions(version, 200).tolist()


def test_a_position_that_differs_from_the_record_is_a_problem_and_changes_nothing(
    world: World,
) -> None:
    version = world.register()
    world.run(4)
    [moment] = world.bars.time[TRAINED + 4 : TRAINED + 5]
    other = 0.25
    world.services(5).ledger.shadows.record(
        version.model_id, version.version, np.array([moment]), np.array([other]), world.when(5)
    )
    report = world.run(6)
    [problem] = report.problems
    assert problem.startswith(f"{version.model_id}@{version.version}: after 1 of 6 bars the position")
    assert f"after the bar of {world.bars.index[TRAINED + 4]:%Y-%m-%d %H:%M} UTC: " in problem
    assert "instead of 0.25" in problem
    assert [each.figures.bars for each in report.versions] == [6]
    assert world.written(version).position[4] == other


def test_a_recorded_bar_that_is_no_longer_stored_is_a_problem(world: World) -> None:
    version = world.register()
    world.run(2)
    gone = world.bars.time[TRAINED + 2] + 10**9
    world.services(3).ledger.shadows.record(
        version.model_id, version.version, np.array([gone]), np.array([0.0]), world.when(3)
    )
    report = world.run(4)
    assert report.versions == ()
    [problem] = report.problems
    assert "after bars that are no longer stored, 1 of them, the first that of 2019-" in problem


def test_a_difference_explained_by_a_correction_is_counted_and_is_no_problem(world: World) -> None:
    version = world.register()
    world.record_other_position(version, 20)
    [problem] = world.run(40).problems
    assert "after 1 of 40 bars the position" in problem

    world.correct(TRAINED + 15, at=world.when(41))
    report = world.run(42)
    seen = only(report)
    assert (seen.explained >= 1, seen.figures.bars) == (True, 42)
    assert f"{seen.explained} recorded positions differ, explained by bars corrected later" in " ".join(
        report.summary_lines()
    )
    assert world.written(version).position[20] == 0.25, "the record stays"
    assert only(world.run(60)).explained == seen.explained, "positions recorded after the correction agree"

    world.record_other_position(version, 61)
    [problem] = world.run(62).problems
    assert "after 1 of 62 bars the position" in problem


def test_a_bar_removed_by_a_correction_leaves_the_record_and_is_no_problem(world: World) -> None:
    world.register()
    world.run(10)
    world.correct(TRAINED + 5, at=world.when(11), remove=True)
    seen = only(world.run(12))
    assert (seen.figures.bars, seen.explained >= 1) == (11, True)


def test_candidates_are_compared_with_the_champion_on_the_common_bars(world: World) -> None:
    champion = world.register(seed=1)
    early = world.register(10, seed=2)
    late = world.register(20, seed=3)
    alone = world.run(20)
    assert [each.version for each in alone.versions] == [each.version for each in (champion, early, late)]
    promoting.promote(
        world.services(20), champion.model_id, champion.version, OPERATOR, "tested", world.when(20)
    )
    few = world.run(100)
    assert [(each.version, each.figures.bars) for each in few.versions] == [
        (champion.version, 100),
        (early.version, 90),
        (late.version, 80),
    ]
    assert [each.against.ours.bars for each in few.versions if each.against] == [90, 80]
    assert [each.against.lead for each in few.versions if each.against] == [None, None]
    assert len(world.written(champion).time) == 100

    many = world.run(NEW)
    assert many.versions[0].against is None
    for each in many.versions[1:]:
        assert each.against is not None
        assert each.against.champion == champion.version
        assert each.against.lead is not None
        assert each.against.difference is not None
        assert each.figures.sharpe_ratio == each.against.ours.sharpe_ratio
    assert many == world.run(NEW).model_copy(update={"versions": many.versions})
    assert ShadowReport.model_validate_json(many.model_dump_json()) == many
    assert " ".join(many.summary_lines()).count("(95 % interval, not valid when looked at repeatedly)") == 2
    row = many.rows()[0]
    assert (row["status"], row["trades"]) == ("production", f"{many.versions[0].figures.trades} of 100")


def test_a_production_version_is_recorded_where_no_version_awaits_a_decision(world: World) -> None:
    version = world.register()
    world.run(1)
    promoting.promote(world.services(1), version.model_id, version.version, OPERATOR, "tested", world.when(1))
    for bars in (2, 3, 4):
        seen = only(world.run(bars))
        assert (seen.status, seen.new, seen.figures.bars, seen.late) == (ModelStatus.PRODUCTION, 1, bars, 0)
    assert "Versions followed: 1, of which 0 in shadow. Positions recorded: 1." in world.run(5).headline
    assert world.written(version).position.tolist() == world.expected_positions(version, 5).tolist()


def test_the_first_champion_is_followed_after_its_retirement_until_its_bundle_is_lost(
    world: World, services: Services
) -> None:
    first = world.register(seed=1)
    second = world.register(1, seed=2)
    world.run(1)
    for version, bars in ((first, 1), (second, 2)):
        own = world.services(bars)
        promoting.promote(own, version.model_id, version.version, OPERATOR, "tested", own.clock())
    report = world.run(3)
    assert [(each.version, each.status) for each in report.versions] == [
        (second.version, ModelStatus.PRODUCTION),
        (first.version, ModelStatus.RETIRED),
    ]
    [value] = report.learning
    assert (value.frozen, value.production) == (first.version, second.version)
    assert value.sentence in " ".join(report.summary_lines())
    assert services.ledger.learning_values.newest(first.model_id) == {first.model_id: value}

    trees(services, first).unlink()
    lost = world.run(4)
    assert [each.version for each in lost.versions] == [second.version]
    [remark] = lost.remarks
    assert f"{first.model_id}@{first.version}, the first champion, is followed no more" in remark
    assert lost.problems == ()


def test_the_record_of_a_version_promoted_before_it_was_followed_begins_late(world: World) -> None:
    version = world.register()
    promoting.promote(
        world.services(30), version.model_id, version.version, OPERATOR, "tested", world.when(30)
    )
    seen = only(world.run(31))
    assert (seen.figures.bars, seen.late) == (31, 30)


def test_a_version_that_cannot_be_read_leaves_the_other_versions_to_run(
    world: World, services: Services
) -> None:
    broken = world.register(seed=1)
    well = world.register(1, seed=2)
    stored = trees(services, broken)
    content = stored.read_bytes()
    stored.write_bytes(content + b"\n")
    report = world.run(5)
    assert [each.version for each in report.versions] == [well.version]
    [problem] = report.problems
    assert problem.startswith(f"{broken.model_id}@{broken.version}: ")
    stored.write_bytes(content)
    assert [each.figures.bars for each in world.run(5).versions] == [5, 4]


def trees(services: Services, version: ModelVersion) -> Path:
    client = services.registry._client
    source = client.get_model_version(version.model_id, str(version.mlflow_version)).source
    [path] = Path(services.settings.home, "mlflow").rglob(f"*{source.removeprefix('models:/')}*/**/trees.txt")
    return path


def test_a_retired_version_is_no_longer_shadowed(world: World) -> None:
    version = world.register()
    world.run(2)
    own = world.services(3)
    own.promotions.retire(version.model_id, version.version, OPERATOR, "tested", own.clock())
    assert world.run(3).versions == ()
    assert len(world.written(version).time) == 2


def test_the_run_shows_a_page_and_fails_with_problems_and_an_alert_lasts_as_long(
    services: Services,
    make_version: Callable[..., ModelVersion],
    tmp_path: Path,
    prefect_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a pass covers all models of a timeframe, and no other test has a model of days
    world = World(services, "lightgbm_dayusd_1d", make_version, tmp_path)
    version = world.register()
    flow = load_flow("flows.shadow.shadow")
    stored = trees(services, version)
    monkeypatch.setattr("clm_core.services._current", world.services(3))
    content = stored.read_bytes()
    stored.write_bytes(content + b"\n")
    with pytest.raises(PassIncomplete, match=rf"{version.version}: .*trees\.txt was changed"):
        flow(timeframe="1d")
    assert "shadow-1d" in [alert.subject for alert in services.alerts.lasting()]
    stored.write_bytes(content)
    services.ledger.set_version_status(version.model_id, version.version, ModelStatus.SHADOW, world.when(3))
    flow(timeframe="1d")
    assert "shadow-1d" not in [alert.subject for alert in services.alerts.lasting()]
    page = httpx.get(f"{prefect_url}/artifacts/shadow-1d/latest").json()["data"]
    assert f"| {version.model_id} | {version.version} | shadow | 3 |" in page


def test_the_command_prints_a_table_or_json_and_refuses_an_unknown_model(
    world: World, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.register()
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    answer = CliRunner().invoke(app, ["shadow", version.model_id, "--json"])
    report = ShadowReport.model_validate_json(answer.stdout)
    # the installation itself has no bars of that market
    assert (answer.exit_code, len(report.problems)) == (1, 1)
    assert report.headline in CliRunner().invoke(app, ["shadow", version.model_id]).stdout
    with pytest.raises(NotFound, match="There is no model nobody_btcusd_1h"):
        shadow.run(services, "nobody_btcusd_1h")


def test_recorded_positions_can_neither_be_changed_nor_deleted(world: World) -> None:
    version = world.register()
    world.run(2)
    with open_ledger(world.services(2).database) as engine:
        for change in ("DELETE FROM shadow_positions", "UPDATE shadow_positions SET position = 1"):
            with pytest.raises(Exception, match="permission denied"), engine.begin() as connection:
                connection.execute(text(change))
    assert len(world.written(version).time) == 2


@pytest.mark.parametrize("position", [np.nan, 1.1, -1.1, np.inf])
def test_a_value_outside_the_positions_is_refused(
    position: float, world: World, ledger_engine: Engine
) -> None:
    version = world.register()
    with pytest.raises(IntegrityError, match="ck_shadow_positions_position"):
        ShadowStore(ledger_engine).record(
            version.model_id, version.version, world.bars.time[:1], np.array([position]), world.when(0)
        )
