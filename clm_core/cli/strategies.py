"""`clm evolve --strategy`: searches for rule strategies, and their verification."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import console, plain, print_json
from clm_core.cli.running import flow_of, services_with_status
from clm_core.cli.search_options import EXIT_INTERRUPTED, validated
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.domain.vocabulary import RuleFamily

if TYPE_CHECKING:
    from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult

ALL = "all"
"""Name of all families together."""


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


def evolve_strategies(fields: dict[str, Any], as_json: bool) -> None:
    """Run a search and print the front."""
    result = _evolve(_request(fields))
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)


def verify_search(name: str, workers: int | None, as_json: bool) -> None:
    """Compute a recorded search again; exit with 1 if anything differs."""
    from clm_core.search.strategy_search import verify

    with services_with_status() as services:
        found = verify(services, name, workers)
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif not found.differences:
        plain.print(
            f"{name}: {found.candidates:,} candidates of generations 0 to {found.generations} and "
            f"{found.members} strategies of the front are the same to the last bit."
        )
    for difference in () if as_json else found.differences:
        plain.print(f"{name}: {difference}")
    if found.differences:
        sys.exit(1)


def _evolve(request: "StrategySearchRequest") -> "StrategySearchResult":
    from clm_core.market.sources import MarketData
    from clm_core.search.strategy_search import fixed_params

    settings = settings_for_change()
    # before any server is started: a typing error must not cost ten seconds
    fixed_params(request)
    MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("flows.evolve_strategies.evolve_strategies", settings, _prepare) as (_, run):
        result: StrategySearchResult = run(request.name, request)
    return result


def _prepare(services: object) -> None:
    import clm_core.search.strategy_run
    import clm_core.search.strategy_search  # noqa: F401 - loads compiled code while the server starts


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
    if result.interrupted:
        next_steps.append(("continue", f"the same command with --name {result.name}"))
    for name, value in next_steps:
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
