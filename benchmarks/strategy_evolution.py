"""What a search for strategies finds: nothing without an edge, a planted one, and more than random search.

    python -m benchmarks.strategy_evolution --home FOLDER     all parts; continues where a former run stopped
    python -m benchmarks.strategy_evolution --write           the tables and the picture alone

Outcomes are kept in benchmarks/strategy_evolution_results/; remove the files to begin anew. Searches are
those of `clm evolve --strategy` at its defaults: 100 candidates in 51 generations, five years of hourly bars
of which the newest fifth is held out, the costs of a new installation.

**Without an edge**: 20 searches over all families on four made processes, five each. The strategy with the
highest deflated Sharpe ratio is handed to the gate by the function behind `clm retrain`.

**Planted edge**: 20 searches for momentum rules where the price drifts with a momentum rule that has a net
Sharpe ratio of 2 at its true parameters.

**Generations**: on four real series and four made ones the front of generation 0, that of generation 50 and
that of a random search of as many evaluations, on the bars of the search and on the held-out bars. Real
series are read from CLM_BENCHMARK_DATA, by default ../shared/data.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.evolved_worlds import FAMILY, NO_EDGE, PLANTED, YEAR, without_edge
from benchmarks.outcomes import keep, kept
from benchmarks.pages import markdown_table, replace_part
from benchmarks.planted_edges import Drift
from benchmarks.recipes import Window
from benchmarks.recipes import bars_of as real_bars
from clm_core.domain.execution import NEW_VERSIONS, Execution
from clm_core.domain.strategy_search import StrategySearch, StrategySearchRequest, StrategySearchResult
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.market.store import SeriesStore

if TYPE_CHECKING:
    from clm_core.services import Services

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "strategy-search.md"
PICTURE = DOCUMENT.parents[1] / "images" / "strategy-generations.png"
RESULTS = Path(__file__).with_name("strategy_evolution_results")
N_BARS = 5 * YEAR
SEARCHES = 20
SEEDS = 3
"""Searches of each case of the comparison of generations."""
WORKERS = 2
MAX_FRONT = 100


@dataclass(frozen=True)
class NoEdge:
    """A search on bars without an edge, and the verdict on its best strategy."""

    process: str
    number: int
    searched: float
    """Median Sharpe ratio of the front on the bars of the search."""
    held_out: float
    shrinkage: float | None
    deflated: float
    """Highest deflated Sharpe ratio of the front."""
    effective: float
    overfitting: float
    decision: str
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A search on bars with a planted edge."""

    number: int
    true_searched: float
    """Net Sharpe ratio of the true rule on the bars of the search."""
    true_held_out: float
    best_held_out: float
    """Highest Sharpe ratio of the front on the held-out bars."""
    chosen_held_out: float
    """That of the strategy with the highest deflated Sharpe ratio."""
    deflated: float
    shrinkage: float | None

    @property
    def succeeded(self) -> bool:
        return self.best_held_out >= 0.7 * self.true_held_out


@dataclass(frozen=True)
class Compared:
    """Fronts of one case and seed: of generation 0, of the last generation, and of random search."""

    case: str
    seed: int
    method: str
    hypervolume: float
    """Of the front in the search, over that of generation 0."""
    searched: float
    """Median Sharpe ratio of the front on the bars of the search."""
    held_out: float


def request(symbol: str, families: Sequence[RuleFamily], seed: int = 0) -> StrategySearchRequest:
    return StrategySearchRequest(
        families=tuple(families), symbol=symbol, seed=seed, workers=WORKERS, requested_by="benchmark"
    )


def searched(clm: "Services", bars: Bars, families: Sequence[RuleFamily]) -> StrategySearchResult:
    from clm_core.search.strategy_search import open_strategy_search, search_strategies

    SeriesStore(clm.settings.home / "data").add(bars, "made", datetime.now(UTC))
    search = request(bars.symbol, families)
    return search_strategies(clm, open_strategy_search(clm, search), search.generations, search.placement)


def medians(result: StrategySearchResult) -> tuple[float, float]:
    """Median Sharpe ratios of the front, on the bars of the search and on the held-out bars."""
    return (
        median(each.searched.sharpe_ratio for each in result.front),
        median(each.held_out.sharpe_ratio for each in result.front if each.held_out is not None),
    )


def without_an_edge(home: Path, todo: Sequence[int]) -> Iterator[NoEdge]:
    from clm_core.cli.retrain import retrain_all
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    results = {}
    with open_services(load_settings()) as clm:
        for number in todo:
            process = list(NO_EDGE)[number % len(NO_EDGE)]
            bars = without_edge(process, f"ZERO{number:03}USD", N_BARS, seed=1_000 + number)
            results[number] = searched(clm, bars, list(RuleFamily))
    requests = []
    for result in results.values():
        best = max(result.front, key=lambda each: each.deflated_sharpe or 0.0)
        fields = {"model_type": best.family.value, "symbol": result.symbol, "training_params": best.params}
        requests.append(RetrainRequest.model_validate(fields | {"requested_by": "benchmark"}))
    for (number, result), outcome in zip(results.items(), retrain_all(requests), strict=True):
        earlier, later = medians(result)
        yield NoEdge(
            process=list(NO_EDGE)[number % len(NO_EDGE)],
            number=number,
            searched=earlier,
            held_out=later,
            shrinkage=result.shrinkage,
            deflated=max(each.deflated_sharpe or 0.0 for each in result.front),
            effective=result.effective_trials,
            overfitting=result.overfitting or 0.0,
            decision=outcome.verdict.decision.value,
            missed=tuple(check.name for check in outcome.verdict.missed),
        )


def with_an_edge(home: Path, todo: Sequence[int]) -> Iterator[Found]:
    from clm_core.evolution.strategies import Strategy
    from clm_core.search.request import stored_bars
    from clm_core.search.strategy_objectives import StrategyObjectives, rows_of
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as clm:
        for number in todo:
            bars = PLANTED.bars(f"EDGE{number:03}USD", N_BARS, seed=2_000 + number)
            result = searched(clm, bars, [FAMILY])
            definition = clm.ledger.strategy_searches.find(result.name)
            known = stored_bars(clm.market, definition)
            market = clm.recorded_terms(definition.symbol, definition.terms)
            true = []
            for rows in rows_of(definition, len(known)):
                objectives = StrategyObjectives(definition, market, known, rows, 1, 1, 1)
                measured = objectives.measure([Strategy(FAMILY, PLANTED.params)])
                true.append(float(measured.metrics[0, 0, 0]))
            later = {each.candidate: each.held_out for each in result.front}
            best = max(result.front, key=lambda each: each.deflated_sharpe or 0.0)
            ratios = [each.sharpe_ratio for each in later.values() if each is not None]
            chosen = later[best.candidate]
            assert chosen is not None
            yield Found(
                number=number,
                true_searched=true[0],
                true_held_out=true[1],
                best_held_out=max(ratios),
                chosen_held_out=chosen.sharpe_ratio,
                deflated=best.deflated_sharpe or 0.0,
                shrinkage=result.shrinkage,
            )


REAL = {
    "BTCUSDT 1h": Window("BTCUSDT_1h", "BTCUSDT", "1h", "2020-09-20", "2025-09-20", 1),
    "ETHUSDT 1h": Window("ETHUSDT_1h", "ETHUSDT", "1h", "2020-09-20", "2025-09-20", 1),
    "XAUUSD 1h": Window("XAUUSD_1h", "XAUUSD", "1h", "2017-03-05", "2022-03-05", 1),
    "SPY 1d": Window("SPY_1d", "SPY", "1d", "1998-01-01", "2021-04-01", 1),
}
MADE = ("planted momentum", "planted slow momentum", "drift of the price", "no edge")
SLOW = replace(PLANTED, look_back=168, threshold=0.08, stop_loss=0.08, max_holding=400)


def bars_of(case: str) -> Bars:
    if case in REAL:
        return real_bars(REAL[case])
    seed = 3_000 + MADE.index(case)
    if case == "planted momentum":
        return PLANTED.bars("MADE", N_BARS, seed)
    if case == "planted slow momentum":
        return SLOW.bars("MADE", N_BARS, seed)
    if case == "drift of the price":
        return Drift(0.15).bars("MADE", N_BARS, seed)
    return without_edge("normal", "MADE", N_BARS, seed)


def compared(case: str, seed: int) -> Iterator[Compared]:
    """Fronts of generation 0, of the last generation, and of random search of as many evaluations."""
    from clm_core.backtest.terms import MarketTerms
    from clm_core.domain.terms import TradingTerms
    from clm_core.evolution.nsga2 import SearchRules, search
    from clm_core.evolution.pareto import hypervolume, is_measured, pareto_ranks, survivors
    from clm_core.search.strategy_objectives import StrategyObjectives, rows_of, space_of

    bars = bars_of(case)
    terms = TradingTerms()
    conditions = request(bars.symbol, list(RuleFamily), seed)
    definition = StrategySearch(
        name="compared",
        symbol=bars.symbol,
        timeframe=bars.timeframe.value,
        dataset_span_days=conditions.dataset_span_days,
        data_snapshot="",
        holdout=conditions.holdout,
        fixed={},
        seed=seed,
        costs=terms.costs,
        execution=Execution(),
        requested_by="benchmark",
        created_at=datetime.now(UTC),
        **{
            name: getattr(conditions, name)
            for name in (
                *("families", "population", "generations", "objectives"),
                *("selection", "crossover", "mutation"),
            )
        },
    )
    market = MarketTerms(terms).under(NEW_VERSIONS)
    space = space_of(definition)
    rows, later = rows_of(definition, len(bars))
    objectives = StrategyObjectives(definition, market, bars, rows, WORKERS)

    def scores(values: Floats) -> Floats:
        return objectives.scores(objectives.measure(space.strategies(values)), definition.objectives)

    rules = SearchRules(conditions.population, conditions.generations, seed)
    generations = list(search(space.genes, rules, scores, space.rows(space.defaults)))
    evaluations = sum(len(each.new_genes) for each in generations)
    drawn = space.genes.random(evaluations, np.random.default_rng([seed, 1]))
    random_scores = scores(drawn)
    kept = survivors(random_scores, pareto_ranks(random_scores), MAX_FRONT)
    kept = kept[(pareto_ranks(random_scores)[kept] == 0) & is_measured(random_scores[kept])]
    first = generations[0]
    last = generations[-1]
    fronts = {
        "generation 0": (first.genes[first.front], first.scores[first.front]),
        "generation 50": (last.genes[last.front], last.scores[last.front]),
        "random search": (drawn[kept], random_scores[kept]),
    }
    reference = np.array(first.reference)
    held_out = StrategyObjectives(definition, market, bars, later, WORKERS, 1, 1)
    whole = StrategyObjectives(definition, market, bars, rows, WORKERS, 1, 1)
    base = hypervolume(first.scores[first.front], reference)
    for method, (genes, front) in fronts.items():
        strategies = space.strategies(genes)
        yield Compared(
            case=case,
            seed=seed,
            method=method,
            hypervolume=hypervolume(front, reference) / base,
            searched=float(np.median(whole.measure(strategies).metrics[:, 0, 0])),
            held_out=float(np.median(held_out.measure(strategies).metrics[:, 0, 0])),
        )


def run(home: Path) -> None:
    """Run missing searches, each stored before the next begins."""
    os.environ["CLM_HOME"] = str(home)
    os.environ["CLM_TRAINING__ISOLATED"] = "false"
    # no setting of a home
    os.environ.pop("CLM_BENCHMARK_DATA", None)
    done = {(each.case, each.seed) for each in kept(RESULTS, "compared", Compared)}
    for case in (*REAL, *MADE):
        for seed in range(SEEDS):
            if (case, seed) not in done:
                keep(RESULTS, "compared", list(compared(case, seed)))
    numbers = {each.number for each in kept(RESULTS, "found", Found)}
    for number in range(SEARCHES):
        if number not in numbers:
            keep(RESULTS, "found", list(with_an_edge(home, [number])))
    judged = {each.number for each in kept(RESULTS, "no_edge", NoEdge)}
    missing = [number for number in range(SEARCHES) if number not in judged]
    for start in range(0, len(missing), 5):
        keep(RESULTS, "no_edge", list(without_an_edge(home, missing[start : start + 5])))


def write() -> None:
    """Rewrite the tables of the page, and the picture."""
    parts = [_no_edge_table(), _found_table(), _compared_table()]
    replace_part(DOCUMENT, "python -m benchmarks.strategy_evolution", "\n".join(parts))
    PICTURE.write_bytes(_picture(kept(RESULTS, "compared", Compared)))


def _no_edge_table() -> str:
    outcomes = kept(RESULTS, "no_edge", NoEdge)
    rows = []
    for process in NO_EDGE:
        own = [each for each in outcomes if each.process == process]
        if own:
            rows.append(
                (
                    process,
                    str(len(own)),
                    f"{mean(each.searched for each in own):.2f}",
                    f"{mean(each.held_out for each in own):.2f}",
                    f"{median(each.shrinkage or 0.0 for each in own):.0%}",
                    f"{max(each.deflated for each in own):.2f}",
                    f"{median(each.effective for each in own):.0f}",
                    f"{median(each.overfitting for each in own):.0%}",
                    f"{sum(each.decision == 'pass' for each in own)} of {len(own)}",
                )
            )
    headings = (
        *("without an edge", "searches", "Sharpe of the front", "held out", "shrinkage, median"),
        *("deflated, highest", "independent trials", "overfitting", "pass the gate"),
    )
    return markdown_table(headings, rows)


def _found_table() -> str:
    results = kept(RESULTS, "found", Found)
    rows = [
        (
            "planted momentum, net Sharpe ratio 2",
            str(len(results)),
            f"{mean(each.true_held_out for each in results):.2f}",
            f"{mean(each.best_held_out for each in results):.2f}",
            f"{mean(each.chosen_held_out for each in results):.2f}",
            f"{median(each.shrinkage or 0.0 for each in results):.0%}",
            f"{sum(each.succeeded for each in results)} of {len(results)}",
            f"{sum(each.chosen_held_out >= 0.7 * each.true_held_out for each in results)} of {len(results)}",
        )
    ]
    headings = (
        *("planted edge", "searches", "true rule, held out", "best of the front, held out"),
        *("chosen by the search, held out", "shrinkage, median", "front reaches 70 %", "chosen reaches 70 %"),
    )
    return markdown_table(headings, rows if results else [])


METHODS = ("generation 0", "random search", "generation 50")


def _compared_table() -> str:
    outcomes = kept(RESULTS, "compared", Compared)
    rows = []
    for case in (*REAL, *MADE):
        own = {name: [e for e in outcomes if e.case == case and e.method == name] for name in METHODS}
        if not all(own.values()):
            continue
        cells = [f"{mean(e.hypervolume for e in own[name]):.2f}" for name in METHODS[1:]]
        cells += [f"{mean(e.searched for e in own[name]):.2f}" for name in METHODS]
        cells += [f"{mean(e.held_out for e in own[name]):.2f}" for name in METHODS]
        rows.append((case, *cells))
    headings = (
        "case",
        *(f"hypervolume, {name}" for name in METHODS[1:]),
        *(f"Sharpe, {name}" for name in METHODS),
        *(f"held out, {name}" for name in METHODS),
    )
    return markdown_table(headings, rows)


def _picture(outcomes: Sequence[Compared]) -> bytes:
    """Median Sharpe ratios of the fronts by case, 1100 x 460 pixels."""
    import io

    from matplotlib.figure import Figure

    cases = [case for case in (*REAL, *MADE) if any(each.case == case for each in outcomes)]
    figure = Figure(figsize=(11, 4.6), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"searched": "On the bars of the search", "held_out": "On held-out bars"}
    colours = ("#b9c2d0", "#9a6700", "#2f6fed")
    for axes, (field, title) in zip(panels, titles.items(), strict=True):
        for place, (method, colour) in enumerate(zip(METHODS, colours, strict=True)):
            values = [
                mean(getattr(each, field) for each in outcomes if (each.case, each.method) == (case, method))
                for case in cases
            ]
            offsets = np.arange(len(cases)) + 0.27 * (place - 1)
            axes.barh(offsets, values, height=0.25, color=colour, label=method)
        axes.set(title=title, xlabel="median Sharpe ratio of the front", yticks=range(len(cases)))
        axes.set_yticklabels(cases)
        axes.axvline(0.0, color="#8a94a6", linewidth=0.8)
        axes.grid(axis="x", color="#e8ecf2", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
    panels[0].invert_yaxis()
    panels[1].legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, help="home of the made series")
    parser.add_argument("--write", action="store_true", help="write the tables and the picture alone")
    options = parser.parse_args()
    if not options.write:
        if options.home is None:
            parser.error("name a --home for the made series")
        run(options.home)
    write()


if __name__ == "__main__":
    main()
