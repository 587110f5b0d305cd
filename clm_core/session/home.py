"""A home opened by a program or a notebook.

    from clm_core import CLM

    with CLM.open("home", create=True) as clm:
        clm.import_bars("my_bars.csv", "MYCOIN", "1h")
        report = clm.retrain("xgboost", "MYCOIN")
        print(report.headline)

Every method makes one call into the process behind the command of the same name: both refuse the same, count
the same trials and leave the same records.
"""

import atexit
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clm_core.domain.errors import ArgumentRefused, NotFound, RegistryUnavailable, SessionClosed
from clm_core.domain.progress import Announce
from clm_core.session.progress import Printed

if TYPE_CHECKING:
    import pandas as pd

    from clm_core.domain.actors import Actor
    from clm_core.domain.promotions import Promotion
    from clm_core.domain.shadow_decisions import ShadowDecision
    from clm_core.domain.versions import ModelVersion
    from clm_core.market.sources import SeriesInfo
    from clm_core.services import Services
    from clm_core.serving import Served
    from clm_core.session.views import ComparisonView, ExplanationView, VersionReport

_open: "CLM | None" = None


class CLM:
    """A home with its bars, models and records, open until `close` or the end of the block.

    A version is named as on the command line: `MODEL@VERSION`, `MODEL@production`, a label, or a model id for
    its newest version. One process works with one home at a time.
    """

    def __init__(self, services: "Services", opened: contextlib.ExitStack) -> None:
        self._services = services
        self._opened: contextlib.ExitStack | None = opened

    @classmethod
    def open(
        cls, home: str | Path | None = None, *, create: bool = False, progress: Announce | None = None
    ) -> Self:
        """Open a home with the settings of its file and of the variables CLM_....

        The same home is opened anew, for a cell run again; the session of before is closed.

        Args:
            home: folder of the home; by default CLM_HOME, or `.clm` in the current folder.
            create: True to make a home where there is none: a database of about 100 MB.
            progress: receiver of the name of each step and its completed fraction; by default steps are
                printed.

        Raises:
            NoHome: there is no home, and `create` is false.
            SettingsError: a setting is unknown or not allowed, or differs from the running stack's.
            DatabaseUnavailable: the database cannot be started or reached.
            SessionClosed: another home is open in this process.
        """
        global _open  # noqa: PLW0603 - a process has one home, whose services Prefect's tasks find
        from clm_core.operations.settings_check import (
            DELIVERED,
            SERVED,
            require_home,
            require_settings_of_stack,
        )
        from clm_core.platform.private_files import files_private
        from clm_core.services import open_services
        from clm_core.settings import load_settings

        settings = load_settings(None if home is None else Path(home))
        if _open is not None:
            if _open.home != settings.home:
                raise SessionClosed(
                    f"The home {_open.home} is open in this process: close its session before opening "
                    f"{settings.home}."
                )
            _open.close()
        require_settings_of_stack(settings, unused=(*SERVED, *DELIVERED))
        if not create:
            require_home(settings)
        with contextlib.ExitStack() as opening, files_private():
            services = opening.enter_context(open_services(settings, progress or Printed().announce))
            _open = session = cls(services, opening.pop_all())
        atexit.register(session.close)
        return session

    def close(self) -> None:
        """Close the home; the database stops with the last process of the home."""
        global _open  # noqa: PLW0603 - see `open`
        opened = self._opened
        self._opened = None
        if opened is None:
            return
        if _open is self:
            _open = None
        atexit.unregister(self.close)
        opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CLM({str(self.home)!r}{'' if self._opened else ', closed'})"

    @property
    def home(self) -> Path:
        """Folder of the home, absolute."""
        return self._services.settings.home

    @property
    def services(self) -> "Services":
        """Stores and settings of the home, for what has no method here; not a stable surface.

        Raises:
            SessionClosed: the session was closed.
        """
        if self._opened is None:
            raise SessionClosed(f"The session of {self.home} was closed: open it again with CLM.open().")
        return self._services

    def series(self) -> "pd.DataFrame":
        """Stored and bundled bars, a row a series: symbol, timeframe, calendar, number of bars, start and end
        (open times in UTC), bars late by now, stale or not, gaps, missing bars, source."""
        from clm_core.session.tables import series_table

        with self._work() as services:
            stale_bars = services.settings.watch.stale_bars
            return series_table(services.market.series(), services.clock(), stale_bars)

    def import_bars(
        self,
        bars: "str | Path | pd.DataFrame",
        symbol: str,
        timeframe: str,
        *,
        calendar: str = "auto",
        timezone: str | None = None,
        columns: Mapping[str, str] | None = None,
        no_volume: bool = False,
        allow: Sequence[str] = (),
    ) -> "SeriesInfo":
        """Add the bars of a file or a table to the store: all of them, or none and the problems.

        Args:
            bars: path of a CSV, parquet or feather file, or a table with a row a bar: open, high, low, close,
                volume, and the open times as a column or as the index.
            timeframe: length of a bar: 1m, 15m, 1h, 4h, 1d, 1w.
            calendar: trading times, see `clm data calendars`; by default as stored, else recognised.
            timezone: zone of times without a zone, such as UTC.
            columns: columns of time, open, high, low, close or volume with other names.
            no_volume: True for a market without volume.
            allow: names of rules the bars may break, as in a refusal.

        Raises:
            InvalidBars: the bars break a rule; the error names the rules and the rows.
            DataError: the file cannot be read, or an argument does not fit.
        """
        from clm_core.market.reading import Layout

        layout = Layout(timezone=timezone, columns=columns or {}, no_volume=no_volume)
        with self._work() as services:
            place = (symbol, timeframe, calendar)
            now = services.clock()
            if isinstance(bars, str | Path):
                return services.market.import_file(Path(bars), *place, now=now, layout=layout, allow=allow)
            return services.market.import_table(bars, *place, now=now, layout=layout, allow=allow)

    def bars(self, symbol: str, timeframe: str = "1h", days: int | None = None) -> "pd.DataFrame":
        """Closed bars of a market over their open times in UTC: open, high, low, close, volume.

        Args:
            days: newest days of the series; by default all of them.

        Raises:
            UnknownSeries: the series does not exist; the message lists the stored ones.
        """
        with self._work() as services:
            return services.market.bars(symbol, timeframe, days, closed_by=services.clock()).to_frame()

    def models(self) -> "pd.DataFrame":
        """A row a model, by id: state, production version, in production since (UTC), versions awaiting a
        decision."""
        from clm_core.operations.overview import read_overview
        from clm_core.session.tables import models_table

        with self._work() as services:
            return models_table(read_overview(services).models)

    def versions(
        self,
        model_id: str | None = None,
        *,
        symbol: str | None = None,
        status: str | None = None,
        min_sharpe: float | None = None,
        limit: int = 100,
    ) -> "pd.DataFrame":
        """A row a version with its newest evaluation, newest first, over the time of the registration (UTC).

        Net return, drawdown (negative) and win rate are fractions; Sharpe ratios are annualised, `sharpe_low`
        and `sharpe_high` the ends of the interval of 95 %. Figures of a version never judged are missing.

        Args:
            status: training, shadow, candidate, production, retired or failed.
            limit: greatest number of rows, 1..1000.

        Raises:
            ArgumentRefused: an argument is not allowed.
        """
        from clm_core.domain.listings import VersionQuery
        from clm_core.session.tables import versions_table

        query = {"model_id": model_id, "symbol": symbol, "status": status, "min_sharpe": min_sharpe}
        with self._work() as services:
            version_query = _validated(VersionQuery, query | {"limit": limit})
            return versions_table(services.ledger.find_versions(version_query).items)

    def jobs(
        self, model_id: str | None = None, *, status: str | None = None, limit: int = 100
    ) -> "pd.DataFrame":
        """A row a training job, newest first, over the time of the request (UTC): model, status, reason, who
        asked, start and end (UTC), parameters, cause of a failure.

        Args:
            status: pending, in_progress, completed or failed.
            limit: greatest number of rows, 1..1000.

        Raises:
            ArgumentRefused: an argument is not allowed.
        """
        from clm_core.domain.listings import JobQuery
        from clm_core.session.tables import jobs_table

        with self._work() as services:
            job_query = _validated(JobQuery, {"model_id": model_id, "status": status, "limit": limit})
            return jobs_table(services.ledger.find_jobs(job_query).items)

    def verdict(self, version: str) -> "VersionReport":
        """Newest verdict on a version, with checks, reasons, figures and the tear sheet.

        Raises:
            NotFound: there is no such version, or it was never judged.
        """
        with self._work() as services:
            return _report(services, _named(services, version))

    def retrain(
        self,
        model: str,
        symbol: str,
        timeframe: str = "1h",
        *,
        days: int | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
        plugin: str | None = None,
        symbols: Sequence[str] = (),
        again: bool = False,
    ) -> "VersionReport":
        """Train a model on the newest bars, backtest it out of sample and judge it, as `clm retrain` does.

        Every retrain is a trial of the market: the more trials, the more a version must show.

        Args:
            model: kind of model, such as xgboost, or a rule strategy; `other` with the name of a plug-in.
            symbol: market of the bars, or name of the pool of `symbols`.
            days: days of bars counted back from the newest; by default five years of hourly bars.
            params: training parameters other than the defaults; names of a section with a dot, as in
                {"max_depth": 5, "sizing.target_volatility": 0.15}.
            again: True trains also where a version of the same bars, parameters, seed and code exists; by
                default the report is of the existing version, as for a cell run a second time.

        Raises:
            ArgumentRefused: an argument is not allowed.
            InvalidTrainingParams: a parameter is unknown or out of range; the message lists the valid ones.
            UnknownSeries: the market has no bars.
            NotRetrained: the request was rejected, or another job serves it.
            TrainingFailed: the training took too long, or its process died.
        """
        from clm_core.domain.jobs import RetrainRequest
        from clm_core.retraining.requests import existing_version, granted, require_members, require_valid
        from clm_core.retraining.window import evidence_window

        given = {"model_type": model, "plugin": plugin, "symbol": symbol, "symbols": tuple(symbols)}
        span = {} if days is None else {"dataset_span_days": days}
        chosen = {"timeframe": timeframe, "training_params": dict(params or {}), "seed": seed}
        chosen["again"] = again
        with self._work() as services:
            request = _validated(RetrainRequest, given | span | chosen | {"requested_by": getuser()})
            settings = services.settings
            now = services.clock()
            require_valid(settings, request, now)
            require_members(settings, services.ledger, request, now)
            window = evidence_window(services, request)
            if window is not None:
                services.announce(window.sentence, 0.0)
            with self._flow("retrain") as flow:
                answer = flow(request)
            services.announce("Done", 1.0)
            existing = existing_version(services.ledger, answer)
            if existing is not None:
                services.announce(f"{existing.model_id}@{existing.version} is the same training.", 1.0)
                return _report(services, existing)
            result = granted(services.ledger, answer)
            return _report(services, result.version, result.decision)

    def compare(self, first: str, second: str) -> "ComparisonView":
        """Two versions beside each other: verdict, metrics, equity over the common time, parameters,
        importance of the features, calibration.

        Raises:
            NotFound: there is no such version.
        """
        from clm_core.lifecycle.comparison import compared_pair, comparison_of, write_page
        from clm_core.session.views import ComparisonView

        with self._work() as services:
            pair = compared_pair(services, _named(services, first), _named(services, second))
            compared = comparison_of(pair)
            return ComparisonView(compared, pair[0].curve, pair[1].curve, write_page(services, compared))

    def explain(self, version: str, rows: int = 500, symbol: str | None = None) -> "ExplanationView":
        """Explanation of a version: features, calibration, sources of the profit; takes seconds.

        Args:
            rows: newest bars to explain, at most.
            symbol: market of the bars: a member of a pool; by default the market of the version.

        Raises:
            NotFound: there is no such version.
            FeatureMismatch: the version does not know the market.
        """
        from clm_core.lifecycle.explanations import explain_version, write_page
        from clm_core.session.views import ExplanationView

        with self._work() as services:
            explained = explain_version(services, _named(services, version), rows, symbol)
            return ExplanationView(explained, write_page(services, explained))

    def equity(self, version: str) -> "pd.DataFrame":
        """Out-of-sample backtest of a version over the open times of the bars (UTC), under the costs of the
        home in force: equity (cash), returns, drawdown (negative) and exposure as fractions.

        Raises:
            NotFound: there is no such version, or its positions are stored no more.
            UnknownSeries: the market has no bars any more.
        """
        from clm_core.retraining.judged_backtest import judged_backtest
        from clm_core.session.tables import equity_table

        with self._work() as services:
            stored = _named(services, version)
            bars_and_backtest = judged_backtest(services, stored)
            if bars_and_backtest is None:
                raise NotFound(
                    f"The out-of-sample positions of {stored.model_id}@{stored.version}, or their bars, are "
                    "stored no more: retrain."
                )
            return equity_table(*bars_and_backtest, services.settings.execution.initial_cash)

    def load(self, model: str) -> "Served":
        """Verified version for a trader: `served.positions(bars)`, see `clm_core.serving.load`.

        Args:
            model: a model id, for its version in production, or MODEL@VERSION.

        Raises:
            NotFound: no version is in production, or there is no such version.
            ModelHalted: production was taken away: hold no position.
            BundleCorrupt: the files are not the registered files.
            PreflightFailed: the loaded model answers otherwise than at its training, or is unsound.
        """
        from clm_core.registry.serving_rights import PRODUCTION
        from clm_core.serving import load

        model_id, _, alias = model.partition("@")
        with self._work() as services:
            return load(model_id, alias or PRODUCTION, registry=services.registry, ledger=services.ledger)

    def positions(self, model: str, *, symbol: str | None = None, days: int | None = None) -> "pd.DataFrame":
        """Positions on the stored bars over their open times (UTC): `position` (-1..1, to be held from the
        next bar's open) and `forecast` (probability of a rise; NaN without one).

        Args:
            model: a model id, for its version in production, or MODEL@VERSION.
            symbol: market of the bars: a member of a pool; by default the version's own.
            days: newest days to show; by default all. Rows without a full look-back have position 0.

        Raises:
            NotEnoughBars: the stored bars are fewer than the version needs.
            See also `load`.
        """
        from clm_core.models.pooled import PooledModel
        from clm_core.session.tables import positions_table

        served = self.load(model)
        trained_on = served.model.trained_on
        if isinstance(served.model, PooledModel) and symbol is None:
            raise ArgumentRefused(
                f"symbol: {trained_on.symbol} is a pool of {', '.join(served.model.symbols)}: name a member"
            )
        with self._work() as services:
            place = (symbol or trained_on.symbol, trained_on.timeframe.value)
            bars = services.market.bars(*place, closed_by=services.clock())
            bars = services.market.with_series(bars, served.series)
            table = positions_table(bars, served.positions(bars), served.model.forecast(bars))
        # the positions of the newest days need the bars before them
        return table if days is None else table.tail(len(bars.last_days(days)))

    def promote(
        self, version: str, reason: str, *, expected: str | None = None, force: bool = False
    ) -> "Promotion":
        """Put a version in production: `models:/MODEL@production`. Its evidence is judged anew.

        Args:
            reason: reason for the audit log.
            expected: version that must be in production now; by default any, or none.
            force: overrule the gate for 7 days.

        Raises:
            PromotionRefused: the verdict in force is not PASS; carries the reasons.
            ConflictError: another version is in production than expected.
        """
        from clm_core.domain.promotions import UNSET
        from clm_core.operations.settings_check import require_policy_of_home
        from clm_core.retraining.promoting import promote

        with self._work() as services:
            require_policy_of_home(services.settings)
            stored = _named(services, version)
            change = promote(
                services,
                stored.model_id,
                stored.version,
                _actor(),
                reason,
                expected_champion=UNSET if expected is None else expected,
                force=force,
            )
            _end_answered_forms(services, stored.model_id)
        return change

    def rollback(self, model_id: str, reason: str, *, to: str | None = None) -> "Promotion":
        """Put the version of before back into production.

        Args:
            reason: reason for the audit log.
            to: label of an earlier version; by default the one before.

        Raises:
            PromotionRefused: no version was in production before, or it may not serve.
            ConflictError: a concurrent change came first.
        """
        with self._work() as services:
            change = services.promotions.rollback(model_id, _actor(), reason, services.clock(), to)
            _end_answered_forms(services, model_id)
        return change

    @contextlib.contextmanager
    def _flow(self, name: str) -> Iterator[Callable[..., Any]]:
        """A flow, as a flow run of the Prefect server that is up, or as plain calls without a server."""
        from clm_core.platform.prefect_server import flow_calls, prepare_environment

        prepare_environment(self.home)
        with flow_calls(name, self.home) as flow, warnings.catch_warnings():
            # of a library below, which looks for widgets of notebooks
            warnings.filterwarnings("ignore", "IProgress not found")
            yield flow

    @contextlib.contextmanager
    def _work(self) -> Iterator["Services"]:
        """Services for a single call, with new files private to the user.

        Raises:
            SessionClosed: the session was closed.
        """
        from clm_core.platform.private_files import files_private

        services = self.services
        with files_private():
            yield services


def _named(services: "Services", name: str) -> "ModelVersion":
    from clm_core.ledger.naming import find_version

    return find_version(services.ledger, name)


def _actor() -> "Actor":
    """A user with access to the database and the home folder is an admin, as on the command line."""
    from clm_core.domain.actors import Actor
    from clm_core.domain.vocabulary import Role

    return Actor(name=getuser(), role=Role.ADMIN)


def _end_answered_forms(services: "Services", model_id: str) -> None:
    """End the runs in Prefect still asking about the model; after a problem the next pass ends the runs."""
    from clm_core.lifecycle.answered_forms import end_answered_forms

    for problem in end_answered_forms(services, model_id):
        warnings.warn(
            f"The waiting run `approve` in Prefect ends with the next shadow pass: {problem}", stacklevel=3
        )


def _report(
    services: "Services", version: "ModelVersion", decision: "ShadowDecision | None" = None
) -> "VersionReport":
    from clm_core.lifecycle.version_files import EQUITY_PICTURE, version_file
    from clm_core.lifecycle.ways_to_pass import ways_to_pass
    from clm_core.session.views import VersionReport

    evaluation, verdict = services.ledger.evaluation(version.model_id, version.version)
    _, _, changes = ways_to_pass(services.ledger, version, verdict)
    page = None
    picture = None
    # the files of a version can be removed, its verdict cannot
    with contextlib.suppress(NotFound, RegistryUnavailable):
        page = version_file(services, version)
        picture = version_file(services, version, EQUITY_PICTURE).read_bytes()
    return VersionReport(version, verdict, evaluation, tuple(changes), page, picture, decision)


def _validated(model: type[Any], values: Mapping[str, Any]) -> Any:
    """A query of the values.

    Raises:
        ArgumentRefused: a value is not allowed.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ArgumentRefused(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
