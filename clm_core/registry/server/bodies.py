"""Bodies of the requests to MLflow: read strictly, checked, and written anew.

MLflow's own parser takes several spellings of a field (`artifact_location`, `artifactLocation`), bodies
encoded twice, and the last of two equal names. So a body may contain the fields of its route alone, in one
spelling, and MLflow receives the checked object instead of the bytes that were sent.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from clm_core.domain.errors import CLMError, NotAllowed
from clm_core.registry.locations import EXPERIMENT
from clm_core.registry.server.routes import BodyCheck, MLflowRoute

RETRAIN_TAG = "clm.retrain"
"""Tag by which operators request a retrain from MLflow's pages."""
NOTES = frozenset({RETRAIN_TAG, "mlflow.note.content", "mlflow.experimentKind"})
"""Tags of CLM and MLflow that operators may set."""
OWN_PREFIXES = ("clm.", "mlflow.")
ENTRIES: Mapping[str, frozenset[str]] = {
    "metrics": frozenset({"key", "value", "timestamp", "step"}),
    "params": frozenset({"key", "value"}),
    "tags": frozenset({"key", "value"}),
}
"""Fields of the entries of a list. Without `model_id`, which would change the metrics of a version."""


class MalformedBody(CLMError):
    """The body is no JSON object, or has a field that the route does not take."""


class Owners(Protocol):
    """Experiments as stored by MLflow."""

    def experiment(self, experiment_id: str) -> str | None:
        """Name of an experiment; None without such an experiment."""

    def experiment_of_run(self, run_id: str) -> str | None:
        """Name of the experiment of a run; None without such a run."""


def checked(route: MLflowRoute, body: bytes, owners: Owners) -> bytes:
    """Body that MLflow receives.

    Raises:
        MalformedBody: the body is no JSON object of the route's fields.
        NotAllowed: the object would change what CLM alone may change.
    """
    fields = _object(body)
    allowed = route.fields or frozenset()
    if unknown := sorted(fields.keys() - allowed):
        raise MalformedBody(
            f"{', '.join(unknown)}: not accepted here; the fields are {', '.join(sorted(allowed))}. "
            "CLM chooses the locations of all artifacts."
        )
    for name in ENTRIES.keys() & fields.keys():
        _require_entries(name, fields[name])
    for check in route.checks:
        _CHECKS[check](fields, owners)
    return json.dumps(fields).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body or b"{}", object_pairs_hook=_unique)
    except ValueError as error:
        raise MalformedBody(f"The body is no JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise MalformedBody("The body must be a JSON object.")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _require_entries(name: str, entries: Any) -> None:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MalformedBody(f"{name} must be a list of objects.")
    if unknown := sorted({key for entry in entries for key in entry} - ENTRIES[name]):
        raise MalformedBody(f"{', '.join(unknown)}: not accepted in {name}.")


def _texts(fields: Mapping[str, Any], *names: str) -> Iterator[str]:
    """Values of the fields that are present, as text."""
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise MalformedBody(f"{name} must be a text.")
        yield value


def _tag(fields: Mapping[str, Any], owners: Owners) -> None:
    for key in _texts(fields, "key"):
        if key not in NOTES and key.strip().casefold().startswith(OWN_PREFIXES):
            raise NotAllowed(
                f"The tag {key} belongs to CLM or MLflow: choose a name without the prefix clm. or mlflow. "
                f"({RETRAIN_TAG} on a version requests a retrain)."
            )


def _own_run(fields: Mapping[str, Any], owners: Owners) -> None:
    runs = list(_texts(fields, "run_id", "run_uuid"))
    if not runs:
        raise MalformedBody("run_id is missing.")
    for run in runs:
        _require_other(owners.experiment_of_run(run))
    _no_clm_tags(fields)


def _own_experiment(fields: Mapping[str, Any], owners: Owners) -> None:
    # MLflow takes the experiment 0 where none is named
    experiments = list(_texts(fields, "experiment_id")) or ["0"]
    for experiment in experiments:
        _require_other(owners.experiment(experiment))
    _no_clm_tags(fields)


def _require_other(experiment: str | None) -> None:
    if experiment == EXPERIMENT:
        raise NotAllowed(
            f"Runs of the experiment {EXPERIMENT} are written by CLM alone: use an experiment of your own. "
            "Notes and tags of your own may be added to every run."
        )


def _free_name(fields: Mapping[str, Any], owners: Owners) -> None:
    for name in _texts(fields, "name", "new_name"):
        if name.strip().casefold() == EXPERIMENT:
            raise NotAllowed(f"The experiment {EXPERIMENT} is CLM's: choose another name.")
    _no_clm_tags(fields)


def _no_clm_tags(fields: Mapping[str, Any]) -> None:
    """Refuse CLM's tags on a new run or experiment; MLflow's clients set tags of MLflow there."""
    for entry in fields.get("tags") or ():
        for key in _texts(entry, "key"):
            if key.strip().casefold().startswith("clm."):
                raise NotAllowed(f"The tag {key} belongs to CLM: choose a name without the prefix clm.")


def _query(fields: Mapping[str, Any], owners: Owners) -> None:
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    try:
        document = parse("".join(_texts(fields, "query")))
    except GraphQLError as error:
        raise MalformedBody(f"The query cannot be read: {error.message}") from error
    for part in document.definitions:
        if isinstance(part, OperationDefinitionNode) and part.operation is not OperationType.QUERY:
            raise NotAllowed(f"GraphQL {part.operation.value}s are refused: only queries are answered.")


_CHECKS: Mapping[BodyCheck, Callable[[Mapping[str, Any], Owners], None]] = {
    BodyCheck.TAG: _tag,
    BodyCheck.OWN_RUN: _own_run,
    BodyCheck.OWN_EXPERIMENT: _own_experiment,
    BodyCheck.FREE_NAME: _free_name,
    BodyCheck.QUERY: _query,
}
