"""`clm evolve --strategy`: searches for rule strategies, and their verification."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import console, plain, print_json, user
from clm_core.cli.retrain import outcome_json, retrain_all, show_outcomes
from clm_core.cli.running import flow_of, services_with_status
from clm_core.cli.search_options import validated
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.domain.vocabulary import RuleFamily

if TYPE_CHECKING:
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
    from clm_core.retraining.results import RetrainResult

ALL = "all"
"""Name of all families together."""
COMBINATIONS = ("vote", "stack", "regime")


def families_of(names: str) -> list[RuleFamily]:
    """Families by their names, separated by commas, or `all`.

    Raises:
        BadParameter: no family has the name.
    """
    if names == ALL:
        return list(RuleFamily)
    try:
        return [RuleFamily(name.strip()) for name in names.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{names!r} names no rule strategy: give {ALL}, or some of {', '.join(RuleFamily)}, "
            "separated by commas",
            param_hint="'--strategy'",
        ) from None


def evolve_strategies(fields: dict[str, Any], ensemble: int | None, combine: str, as_json: bool) -> None:
    """Run a search and print the front; then retrain an ensemble of the front, if one is asked for.

    Args:
        ensemble: number of members; None for no ensemble.
        combine: combination of the members, one of `COMBINATIONS`.
    """
    if combine not in COMBINATIONS:
        raise typer.BadParameter(f"--combine is {' or '.join(COMBINATIONS)}, not {combine}")
    result = _evolve(_request(fields))
    if not as_json:
        _show(result)
    outcomes = [] if ensemble is None or result.interrupted else _ensemble(result, ensemble, combine)
    if as_json:
        retrained = {} if ensemble is None else {"retrained": [outcome_json(each) for each in outcomes]}
        print_json(result.model_dump(mode="json") | retrained)
    elif outcomes:
        show_outcomes(outcomes)
    if result.interrupted:
        sys.exit(ExitCode.INTERRUPTED)


def _ensemble(result: "StrategySearchResult", count: int, combine: str) -> "list[RetrainResult]":
    """Retrains of the members, and of the ensemble of the versions.

    Raises:
        NothingTuned: fewer than two strategies of the front have different returns.
    """
    from clm_core.domain.errors import NothingTuned

    by_candidate = {each.candidate: each for each in result.front}
    members = [by_candidate[each] for each in result.diverse[:count]]
    if len(members) < 2:
        raise NothingTuned(
            f"The front of {result.name} has {len(members)} strategies with different returns, and an "
            "ensemble needs two: search more families, or more generations"
        )
    outcomes = retrain_all([_retrain_request(result, each.family.value, each.params) for each in members])
    names = [f"{each.version.model_id}@{each.version.version}" for each in outcomes]
    # every member was judged by itself already; the ensemble is judged as a recipe
    params = {"members": names, "combine": combine, "allow_failed": True}
    return [*outcomes, *retrain_all([_retrain_request(result, "ensemble", params)])]


def _retrain_request(result: "StrategySearchResult", model: str, params: dict[str, Any]) -> "RetrainRequest":
    fields = {
        "model_type": model,
        "symbol": result.symbol,
        "timeframe": result.timeframe,
        "dataset_span_days": result.dataset_span_days,
        "training_params": params,
        "requested_by": user(),
    }
    from clm_core.domain.jobs import RetrainRequest

    return RetrainRequest.model_validate(fields)


def verify_search(name: str, placement: dict[str, Any], as_json: bool) -> None:
    """Compute a recorded search again; exit with 1 if anything differs.

    Args:
        placement: fields of a `Placement`.
    """
    from clm_core.domain.searches import Placement
    from clm_core.search.strategy_search import verify

    placed = validated(Placement, placement)
    with services_with_status() as services:
        report = verify(services, name, placed)
    if as_json:
        print_json(report.model_dump(mode="json"))
    elif not report.differences:
        plain.print(
            f"{name}: {report.candidates:,} candidates of generations 0 to {report.generations} and "
            f"{report.members} strategies of the front are the same to the last bit."
        )
    for difference in () if as_json else report.differences:
        plain.print(f"{name}: {difference}")
    if report.differences:
        sys.exit(ExitCode.FAILED)


def _evolve(request: "StrategySearchRequest") -> "StrategySearchResult":
    from clm_core.platform.object_storage import market_data
    from clm_core.search.strategy_search import check

    settings = settings_for_change()
    # before the database is opened: a typing error must not cost seconds
    check(request)
    market = market_data(settings.home, settings.storage)
    market.bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("evolve_strategies", settings) as (_, run):
        result: StrategySearchResult = run(request.name, request)
    return result


def _request(fields: dict[str, Any]) -> "StrategySearchRequest":
    from clm_core.domain.strategy_search import StrategySearchRequest

    request = validated(StrategySearchRequest, fields)
    # the name is printed at the start: an interrupted search can be continued under the name
    name = request.name or f"{request.subject}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    return request.model_copy(update={"name": name})


def _show(result: "StrategySearchResult") -> None:
    from clm_core.search import strategy_report as report

    console.print(f"{result.name}: {report.headline(result)}", highlight=False, soft_wrap=True)
    next_steps = []
    if result.front:
        table = Table(box=SIMPLE_HEAVY)
        for name in report.COLUMNS:
            is_text = name in report.COLUMNS[:2]
            table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text)
        for each in report.listed(result.front):
            table.add_row(*report.row(each))
        table.add_section()
        for each in result.defaults:
            table.add_row(*report.default_row(each), style="dim")
        console.print(table)
        for sentence in report.sentences(result):
            console.print(sentence, highlight=False, soft_wrap=True)
        best = report.best_by_deflated(result)
        assert best is not None
        next_steps = [("picture", str(result.picture)), ("judge", report.retrain_command(result, best))]
        next_steps.append(("verify", f"clm evolve --verify {result.name}"))
    next_steps.append(("report", str(result.report)))
    if result.interrupted:
        next_steps.append(("continue", f"the same command with --name {result.name}"))
    for name, value in next_steps:
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
