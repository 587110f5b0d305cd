"""Figures of a run: the rows written by SQL are those that MLflow's client writes."""

import math
from collections.abc import Sequence

import psycopg
import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from psycopg.sql import SQL, Identifier

from clm_core.domain.errors import RegistryUnavailable
from clm_core.registry.run_rows import RunOrigin, write_batch
from clm_core.registry.store_tables import experiment_named
from clm_core.services import Services

RUN_COLUMNS = {
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "params": "run_uuid",
    "tags": "run_uuid",
    "logged_model_metrics": "run_id",
}
TWICE_THE_SAME_STEP = [Metric("curve", 3.0, 5, 1), Metric("curve", 2.5, 5, 1), Metric("curve", 9.0, 5, 0)]
CURVE = [Metric("equity", 1.0 + step / 7, 0, step) for step in range(300)]


def rows(services: Services, run_id: str, model_id: str) -> dict[str, list[tuple[object, ...]]]:
    """Rows of a run in each table, without the ids, which differ from run to run."""
    with psycopg.connect(services.database.url("mlflow").replace("+psycopg", "")) as connection:
        return {
            table: sorted(
                tuple("this" if value in {run_id, model_id} else value for value in row)
                for row in connection.execute(
                    SQL("SELECT * FROM {} WHERE {} = %s").format(Identifier(table), Identifier(column)),
                    [run_id],
                )
                if row[0] != "mlflow.runName"
            )
            for table, column in RUN_COLUMNS.items()
        }


def new_run(services: Services) -> tuple[str, str]:
    """Run and logged model of a new version."""
    services.registry.connect()
    client = services.registry.client
    experiment = client.get_experiment_by_name("clm").experiment_id
    run_id = client.create_run(experiment).info.run_id
    return run_id, client.create_logged_model(experiment, source_run_id=run_id).model_id


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([CURVE], id="curve"),
        pytest.param([TWICE_THE_SAME_STEP], id="values of a step"),
        pytest.param([CURVE, CURVE], id="logged again"),
        pytest.param([CURVE[200:], CURVE[:250]], id="earlier steps later"),
        pytest.param([[Metric("sharpe", 1, 0, 0)], [Metric("sharpe", 0.5, 0, 0)]], id="smaller value"),
        pytest.param([[Metric("sharpe", 1, 0, 0)], [Metric("sharpe", 0.5, 1, 0)]], id="later time"),
        pytest.param([[Metric("smallest", 5e-324, 0, 0), Metric("third", 1 / 3, 0, 0)]], id="digits"),
    ],
)
def test_a_batch_written_by_sql_leaves_the_rows_of_mlflow_s_client(
    services: Services, batches: Sequence[Sequence[Metric]]
) -> None:
    params = [Param("seed", "7"), Param("note", 'ö, "quoted", {braces}, \\, NULL')]
    stored = []
    for write in ("client", "sql"):
        run_id, model_id = new_run(services)
        for number, batch in enumerate(batches):
            of_model = [Metric(f"train.{number}", 0.25, 17, 0, model_id=model_id, run_id=run_id)]
            metrics = [*batch, *of_model]
            tags = [RunTag("clm.terms", str(number)), RunTag("clm.empty", "")]
            if write == "client":
                services.registry.client.log_batch(run_id, metrics, params if number == 0 else [], tags)
            else:
                uri = services.database.url("mlflow")
                assert write_batch(uri, run_id, metrics, params if number == 0 else [], tags)
        stored.append(rows(services, run_id, model_id))
    assert stored[0] == stored[1]
    assert all(stored[0].values()), "no table is empty"


@pytest.mark.parametrize(
    ("metrics", "params", "tags"),
    [
        pytest.param([Metric("a//b", 1.0, 0, 0)], [], [], id="unusual name"),
        pytest.param([Metric("x" * 251, 1.0, 0, 0)], [], [], id="long name"),
        pytest.param([Metric("loss", math.nan, 0, 0)], [], [], id="no number"),
        pytest.param([Metric("loss", math.inf, 0, 0)], [], [], id="infinite"),
        pytest.param([], [Param("note", "x" * 5001)], [], id="long value"),
        pytest.param([], [Param("seed", "1"), Param("seed", "2")], [], id="parameter twice"),
        pytest.param([], [], [RunTag("mlflow.runName", "renamed")], id="tag of MLflow"),
        pytest.param([Metric("good", 1.0, 0, 0)], [Param("known", "2")], [], id="parameter changed"),
    ],
)
def test_a_batch_that_mlflow_checks_or_changes_is_left_to_its_client(
    services: Services, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
) -> None:
    run_id, model_id = new_run(services)
    services.registry.client.log_param(run_id, "known", "1")
    before = rows(services, run_id, model_id)
    assert not write_batch(services.database.url("mlflow"), run_id, metrics, params, tags)
    assert rows(services, run_id, model_id) == before


def test_a_deleted_run_takes_no_figures(services: Services) -> None:
    run_id, model_id = new_run(services)
    services.registry.client.delete_run(run_id)
    assert not write_batch(services.database.url("mlflow"), run_id, [Metric("sharpe", 1.0, 0, 0)], [], [])
    with pytest.raises(RegistryUnavailable, match="must be in the 'active' state") as refused:
        services.registry.log_results(run_id, {"sharpe": 1.0}, {})
    assert isinstance(refused.value.__cause__, MlflowException)
    assert rows(services, run_id, model_id)["metrics"] == []


def test_an_experiment_is_found_by_its_name_without_mlflow(services: Services) -> None:
    services.registry.connect()
    experiment = services.registry.client.get_experiment_by_name("clm")
    uri = services.database.url("mlflow")
    assert experiment_named(uri, "clm") == (experiment.experiment_id, experiment.artifact_location)
    assert experiment_named(uri, "none of this name") is None


ORIGIN_ROWS = """
SELECT inputs.source_type, destination_type, step, dataset.name, digest, dataset_source_type, dataset_source,
       dataset_schema, dataset_profile, dataset.experiment_id, tags.name, tags.value, param.param_key,
       param.param_value
FROM inputs LEFT JOIN datasets AS dataset ON dataset_uuid = source_id LEFT JOIN input_tags AS tags
USING (input_uuid) LEFT JOIN logged_model_params AS param ON model_id = destination_id
WHERE %s IN (source_id, destination_id) ORDER BY 1, 2, 11, 13
"""


def origin_rows(services: Services, run_id: str) -> list[tuple[object, ...]]:
    with psycopg.connect(services.database.url("mlflow").replace("+psycopg", "")) as connection:
        return connection.execute(ORIGIN_ROWS, [run_id]).fetchall()


def data_of(digest: str, source: str = "{}") -> DatasetInput:
    tags = [InputTag("mlflow.data.context", "training"), InputTag("note", "ä, {x}")]
    return DatasetInput(Dataset("BTCUSD 1h", digest, "clm.market", source), tags)


PARAMS = [Param("depth", "3"), Param("note", 'ö, "quoted"')]


def write_origin(services: Services, how: str, data: DatasetInput) -> list[tuple[object, ...]]:
    run_id, model_id = new_run(services)
    if how == "client":
        client = services.registry.client
        client.log_model_params(model_id, {each.key: each.value for each in PARAMS})
        client.log_inputs(run_id, [data])
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    else:
        uri = services.database.url("mlflow")
        assert write_batch(uri, run_id, [], [], [], RunOrigin(data, model_id, PARAMS))
    return origin_rows(services, run_id)


def test_the_origin_of_a_run_has_the_rows_of_mlflow_s_client(services: Services) -> None:
    # each dataset is new to one of the two, and known to the other
    by_client, again_by_sql = (write_origin(services, how, data_of("a")) for how in ("client", "sql"))
    by_sql, again_by_client = (write_origin(services, how, data_of("b")) for how in ("sql", "client"))
    assert by_client == again_by_sql
    assert by_sql == again_by_client
    assert len(by_client) == len(by_sql) == 4
    run_id, model_id = new_run(services)
    services.registry.client.log_inputs(run_id, [data_of("a")])
    assert write_batch(
        services.database.url("mlflow"), run_id, [], [], [], RunOrigin(data_of("a"), model_id, [])
    )
    assert len(services.registry.client.get_run(run_id).inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    "data",
    [data_of("x" * 37), data_of("a", source=""), data_of("a", source="x" * 65536), data_of("a", source="\0")],
    ids=["long digest", "no source", "long source", "zero character"],
)
def test_data_that_mlflow_checks_is_left_to_its_client(services: Services, data: DatasetInput) -> None:
    run_id, model_id = new_run(services)
    origin = RunOrigin(data, model_id, PARAMS)
    metrics = [Metric("sharpe", 1.0, 0, 0)]
    assert not write_batch(services.database.url("mlflow"), run_id, metrics, [], [], origin)
    assert origin_rows(services, run_id) == []
    assert rows(services, run_id, model_id)["metrics"] == []
