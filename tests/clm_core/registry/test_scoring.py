"""Predictions by MLflow: every spelling of a table, in Python and from MLflow's scoring server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from patience import PATIENT_SECONDS

from clm_core.domain.errors import DataError
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.models.bundle import read_card
from clm_core.registry.scoring import InputRefused, Scorer
from clm_core.retraining import jobs, steps
from clm_core.services import Services

EPOCHS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
TIMES: dict[str, Callable[["pd.Series[pd.Timestamp]"], Any]] = {
    "ISO text in UTC": lambda times: times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO text with an offset": lambda times: times.dt.tz_convert("Asia/Tokyo").map(pd.Timestamp.isoformat),
    "ISO text without a zone": lambda times: times.dt.strftime("%Y-%m-%d %H:%M:%S"),
    **{
        f"epoch in {unit}": lambda times, size=size: (
            times.astype("datetime64[ns, UTC]").astype("int64") // size
        )
        for unit, size in EPOCHS.items()
    },
}
EXECUTION = {"stop_loss": 0.05, "take_profit": None, "lot_size": None, "rebalance_band": 0.02}
every_spelling_of_time = pytest.mark.parametrize("spelling", TIMES.values(), ids=TIMES)


@pytest.fixture(scope="module")
def version(services: Services) -> ModelVersion:
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="EURUSD",
        dataset_span_days=120,
        training_params={"rounds": 20, "horizon": 24, "execution.stop_loss": 0.05},
        seed=1,
        requested_by="tests",
    )
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        return steps.register(services, lease, job, bars, steps.train(services, job, bars))


@pytest.fixture(scope="module")
def files(version: ModelVersion, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert services.registry._fluent
    folder = tmp_path_factory.mktemp("version")
    return Path(mlflow.artifacts.download_artifacts(version.model_path, dst_path=str(folder)))


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("EURUSD", "1h", days=150, closed_by=services.clock())


@pytest.fixture(scope="module")
def table(bars: Bars) -> pd.DataFrame:
    return bars.to_frame().reset_index()


@pytest.fixture(scope="module")
def expected(version: ModelVersion, services: Services, bars: Bars) -> "np.ndarray[Any, Any]":
    """Position and forecast of each bar."""
    model = services.registry.load(version.model_path, version.bundle_digest)
    return np.stack([model.positions(bars), model.forecast(bars)], axis=1)


@pytest.fixture(scope="module")
def loaded(files: Path) -> Any:
    return mlflow.pyfunc.load_model(str(files))


@pytest.fixture(scope="module")
def scorer(files: Path) -> Scorer:
    config = mlflow.models.Model.load(str(files)).flavors["python_function"]["config"]
    return Scorer.load(files / "artifacts" / "bundle", config)


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[str]:
    """MLflow's scoring server in a process of its own; the URL for predictions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "models",
        "serve",
        "-m",
        str(files),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        cwd=files,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENT_SECONDS
        while not answers(f"{url}/ping"):
            assert process.poll() is None, "the scoring server ended"
            assert time.monotonic() < deadline, "the scoring server did not start"
            time.sleep(0.3)
        yield f"{url}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def post(url: str, body: str, content_type: str = "application/json") -> tuple[int, str]:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=PATIENT_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def served(url: str, body: str, content_type: str = "application/json") -> "np.ndarray[Any, Any]":
    status, text = post(url, body, content_type)
    assert status == 200, text
    rows = json.loads(text, parse_constant=refuse_constant)["predictions"]
    return np.array([[row["position"], row["forecast"]] for row in rows], dtype=np.float64)


@every_spelling_of_time
def test_the_scoring_server_answers_split_records_and_csv(
    spelling: Callable[..., Any], server: str, table: pd.DataFrame, expected: "np.ndarray[Any, Any]"
) -> None:
    sent = table.assign(timestamp=spelling(table["timestamp"]))
    split = json.dumps({"dataframe_split": sent.to_dict("split")})
    records = json.dumps({"dataframe_records": sent.to_dict("records")})

    np.testing.assert_array_equal(served(server, split), expected)
    np.testing.assert_array_equal(served(server, records), expected)
    np.testing.assert_array_equal(served(server, sent.to_csv(index=False), "text/csv"), expected)


def test_an_unknown_forecast_is_null_in_json(server: str, table: pd.DataFrame) -> None:
    sent = table.assign(timestamp=table["timestamp"].astype(str))
    _, text = post(server, json.dumps({"dataframe_split": sent.to_dict("split")}))

    assert json.loads(text)["predictions"][0] == {"position": 0.0, "forecast": None}


def test_the_stored_example_is_a_valid_request(
    server: str, files: Path, table: pd.DataFrame, bars: Bars
) -> None:
    status, text = post(server, (files / "serving_input_example.json").read_text())

    assert status == 200, text
    assert len(json.loads(text)["predictions"]) == read_card(files / "artifacts" / "bundle").bars_needed


BAD_REQUESTS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "give predict() at least 1,802 closed bars; there are 151": lambda table: table.tail(151),
    "a column is missing: give timestamp": lambda table: table.drop(columns="timestamp"),
    "a value is missing or not a number": lambda table: table.assign(open="much"),
    "neither ISO 8601 nor a count": lambda table: table.assign(timestamp="soon"),
}


@pytest.mark.parametrize("message", BAD_REQUESTS)
@pytest.mark.parametrize("kind", ["dataframe_split", "dataframe_records", "csv"])
def test_the_scoring_server_refuses_bad_tables_with_400_and_no_traceback(
    message: str, kind: str, server: str, table: pd.DataFrame
) -> None:
    sent = BAD_REQUESTS[message](table.assign(timestamp=table["timestamp"].astype(str)))
    if kind == "csv":
        status, text = post(server, sent.to_csv(index=False), "text/csv")
    else:
        status, text = post(server, json.dumps({kind: sent.to_dict(kind.removeprefix("dataframe_"))}))

    assert status == 400
    assert message in json.loads(text)["message"]
    assert "Traceback" not in text
    assert "stack_trace" not in text


def test_a_missing_price_column_is_named(server: str, table: pd.DataFrame) -> None:
    sent = table.drop(columns="close").assign(timestamp=table["timestamp"].astype(str))
    status, text = post(server, json.dumps({"dataframe_records": sent.to_dict("records")}))

    assert status == 400
    assert "missing inputs ['close']" in json.loads(text)["message"]
    assert "Traceback" not in text


FRAMES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "times in UTC": lambda table: table,
    "times in another zone": lambda table: table.assign(
        timestamp=table["timestamp"].dt.tz_convert("America/New_York")
    ),
    "times without a zone": lambda table: table.assign(timestamp=table["timestamp"].dt.tz_localize(None)),
    "Python's datetimes": lambda table: table.assign(
        timestamp=pd.Series([time.to_pydatetime() for time in table["timestamp"]], dtype=object)
    ),
    "an index of times": lambda table: table.set_index("timestamp"),
    "an index of times without a zone": lambda table: (
        table.set_index(table["timestamp"].dt.tz_localize(None)).drop(columns="timestamp").rename_axis("date")
    ),
    "an index of labels": lambda table: table.set_index(
        pd.Index([f"bar {row}" for row in range(len(table))])
    ),
    "a column more": lambda table: table.assign(vwap=1.0),
    "whole numbers": lambda table: table.assign(volume=table["volume"].round().astype(np.int64)),
    "text": lambda table: table.astype(dict.fromkeys(table.columns, str)),
    **{
        name: lambda table, spelling=spelling: table.assign(timestamp=spelling(table["timestamp"]))
        for name, spelling in TIMES.items()
    },
}


@pytest.mark.parametrize("change", FRAMES.values(), ids=FRAMES)
def test_every_spelling_of_a_frame_has_the_same_answer_over_its_own_index(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    loaded: Any,
    table: pd.DataFrame,
    expected: "np.ndarray[Any, Any]",
) -> None:
    frame = change(table)
    answer = loaded.predict(frame)

    assert answer.dtypes.to_dict() == {"position": np.float64, "forecast": np.float64}
    assert answer.index.equals(frame.index)
    if frame["volume"].dtype != np.int64:
        np.testing.assert_array_equal(answer, expected)


def test_epochs_of_daily_bars_long_ago_and_with_a_fraction_are_read(scorer: Scorer, bars: Bars) -> None:
    seconds = bars.time / 1e9
    table = bars.to_frame().reset_index(drop=True).assign(timestamp=seconds.astype(str))

    assert len(scorer.predict(table, datetime.now(UTC))) == len(bars)


@pytest.mark.parametrize("count", [0, 1, 150, 151, 1_801])
def test_fewer_bars_than_needed_are_refused(count: int, loaded: Any, table: pd.DataFrame) -> None:
    with pytest.raises(
        MlflowException, match=f"at least 1,802 closed bars; there are {count:,}|there is no bar"
    ):
        loaded.predict(table.tail(count))


def test_every_window_long_enough_has_the_answer_of_all_history(
    scorer: Scorer, table: pd.DataFrame, expected: "np.ndarray[Any, Any]"
) -> None:
    now = datetime.now(UTC)
    for count in range(1_802, 2_002, 5):
        answer = scorer.predict(table.tail(count), now)
        assert np.array_equal(answer.to_numpy()[-1], expected[-1])


def test_a_version_publishes_the_number_of_bars(
    version: ModelVersion, services: Services, files: Path, loaded: Any
) -> None:
    assert read_card(files / "artifacts" / "bundle").bars_needed == 1_802
    assert loaded.metadata.metadata == {
        "bars_needed": 1_802,
        "symbol": "EURUSD",
        "timeframe": "1h",
        "execution": EXECUTION,
    }
    assert services.registry.tagged_bars_needed(version.model_id, version.mlflow_version) == 1_802
    assert loaded.metadata.signature.inputs.input_names() == [
        "timestamp",
        *("open", "high", "low", "close", "volume"),
    ]
    assert loaded.metadata.signature.outputs.input_names() == ["position", "forecast"]
    assert len(loaded.input_example) == 1_802


def test_a_trader_on_mlflow_gets_the_execution_before_and_after_loading(
    version: ModelVersion, loaded: Any
) -> None:
    assert mlflow.models.get_model_info(version.model_path).metadata["execution"] == EXECUTION
    assert loaded.unwrap_python_model().execution == EXECUTION


BEFORE_EXECUTION = """
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd

from clm_core.registry.scoring import Scorer


class ServedModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self._scorer = Scorer.load(Path(context.artifacts["bundle"]), context.model_config)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return self._scorer.predict(model_input, datetime.now(UTC), params)


mlflow.models.set_model(ServedModel())
"""


def test_serving_code_stored_before_it_knew_the_execution_keeps_answering(
    files: Path, table: pd.DataFrame, expected: "np.ndarray[Any, Any]", tmp_path: Path
) -> None:
    shutil.copytree(files, tmp_path / "version")
    (tmp_path / "version" / "serving.py").write_text(BEFORE_EXECUTION)
    older = mlflow.pyfunc.load_model(str(tmp_path / "version"))
    assert np.array_equal(older.predict(table), expected, equal_nan=True)


def test_serving_code_answers_where_the_installed_release_knows_no_execution(
    files: Path,
    table: pd.DataFrame,
    expected: "np.ndarray[Any, Any]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Scorer, "execution")
    loaded = mlflow.pyfunc.load_model(str(files))
    assert np.array_equal(loaded.predict(table), expected, equal_nan=True)


def newest_first(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[::-1]


def with_cell(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.copy()
        changed.loc[row, column] = value
        return changed

    return change


def shifted(**delta: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(timestamp=table["timestamp"] + pd.Timedelta(**delta))


def stuck(table: pd.DataFrame) -> pd.DataFrame:
    changed = table.copy()
    for column in ("open", "high", "low", "close", "volume"):
        changed.loc[100:120, column] = changed.loc[100, column]
    return changed


def times_like(pattern: list[str]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(
        timestamp=[
            time.strftime(pattern[row % len(pattern)]) for row, time in enumerate(table["timestamp"].tolist())
        ]
    )


BAD: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "newest-first": newest_first,
    "out-of-order": lambda table: table.iloc[[1, 0, *range(2, len(table))]],
    "duplicate-time": lambda table: table.iloc[[0, 0, *range(1, len(table))]],
    "nan": with_cell("open", 7, np.nan),
    "infinite": with_cell("high", 7, np.inf),
    "non-positive-price": with_cell("low", 7, 0.0),
    "negative-volume": with_cell("volume", 7, -1.0),
    "high-below-low": with_cell("high", 7, 0.5),
    "outside-range": with_cell("close", 7, 1.5),
    "scale-jump": with_cell("high", 7, 500.0),
    "stuck-price": stuck,
    "off-grid": shifted(minutes=7),
    "future-bar": shifted(days=9_000),
    "unreadable-time": with_cell("timestamp", 7, pd.NaT),
    "missing-columns": lambda table: table.drop(columns="timestamp"),
    "mixed-time-zones": times_like(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S"]),
    "other-spacing": lambda table: table.iloc[::4],
    "closed-market": shifted(days=2),
    "mixed-time-units": lambda table: table.assign(
        timestamp=[10**9 * (1 + row % 2 * 999) for row in range(len(table))]
    ),
}
COMMAND_LINE = ("--", "clm ", "import", " file", "pass ")


@pytest.mark.parametrize("rule", BAD)
def test_a_refusal_names_the_rule_in_the_words_of_python(
    rule: str, scorer: Scorer, table: pd.DataFrame
) -> None:
    with pytest.raises(InputRefused) as refused:
        scorer.predict(BAD[rule](table), datetime.now(UTC))

    assert rule in str(refused.value)
    assert isinstance(refused.value, DataError)
    assert not [words for words in COMMAND_LINE if words in str(refused.value)]


def test_an_open_bar_is_refused_in_the_words_of_python(scorer: Scorer, table: pd.DataFrame) -> None:
    now = table["timestamp"].iloc[-1].to_pydatetime()
    with pytest.raises(InputRefused, match="the bar is still open and will change: leave it out"):
        scorer.predict(table, now)


def test_an_unusual_series_is_taken_when_meant_so(scorer: Scorer, loaded: Any, table: pd.DataFrame) -> None:
    with pytest.raises(InputRefused, match=r'Meant so: predict\(bars, params={"allow": "stuck-price"}\)'):
        scorer.predict(stuck(table), datetime.now(UTC))
    assert len(loaded.predict(stuck(table), params={"allow": "stuck-price"})) == len(table)
    with pytest.raises(
        MlflowException, match="allow=nan: no such rule may be broken; choose from closed-mar"
    ):
        loaded.predict(table, params={"allow": "nan"})
