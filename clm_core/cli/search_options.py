"""Options and arguments shared by the commands that name a kind of model: trainings and searches."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clm_core.cli.output import problem
from clm_core.domain.vocabulary import ModelType, RuleFamily

if TYPE_CHECKING:
    from pydantic import BaseModel

    KindName = str
else:
    # an enumeration of two others is no type to mypy
    KindName = StrEnum("KindName", [(each.name, each.value) for each in (*ModelType, *RuleFamily)])
    """Model types, and the rule strategies by their names."""

Request = TypeVar("Request", bound="BaseModel")

MODEL = typer.Option(help="Kind of model to search parameters for.")
SYMBOL = typer.Option(help="Market, as in `clm data list`.")


def _refuse_pool(symbols: str | None) -> None:
    if symbols is not None:
        raise typer.BadParameter(
            "a search runs on one market: name one with --symbol, then train the pool with the parameters "
            "found, as clm retrain --symbols A,B --pool NAME --params-from STUDY"
        )


Symbols = Annotated[str | None, typer.Option(hidden=True, callback=_refuse_pool)]
"""Option of `clm retrain` that a search refuses with the reason."""
Plugin = Annotated[str | None, typer.Option(help="With --model other: name of the plug-in.")]
Timeframe = Annotated[str, typer.Option(help="Length of a bar.")]
Days = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Days of bars, counted back from the newest bar.",
        show_default="1,825 or what there is; other lengths of bars: docs/how-to/retrain.md",
    ),
]
Holdout = Annotated[
    float, typer.Option(min=0, max=0.5, help="Share of the bars, the newest, held out from the search.")
]
TrainingParams = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Training parameter; may be repeated.")
]
TrainingSeed = Annotated[int, typer.Option(min=0, help="Random seed of the training.")]
Again = Annotated[
    bool,
    typer.Option(
        "--again", help="Train also if a version of the same bars, parameters, seed and code exists."
    ),
]
FixedParams = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Fixed training parameter, not searched; may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the search, and first training seed of each trial.")]
Seeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Seeds each set of parameters is evaluated with.",
        show_default="as many as a retrain of the model type uses",
    ),
]
ParallelWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="Sets of parameters evaluated in parallel.", show_default="one per processor"),
]

On = Annotated[str, typer.Option(metavar="local|processes|ray", help="Place where the search is computed.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster, as host:6379.",
        show_default="RAY_ADDRESS, or a cluster on this machine",
    ),
]


def span_of(days: int | None) -> dict[str, int]:
    """Field of the requested span; empty for the default of the bar length."""
    return {} if days is None else {"dataset_span_days": days}


def validated(request: type[Request], fields: dict[str, Any]) -> Request:
    """The request with these fields; errors are reported as errors of the command line."""
    from pydantic import ValidationError

    try:
        return request.model_validate(fields)
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None
