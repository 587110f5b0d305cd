"""Log lines as JSON."""

import json
import logging
from collections.abc import Iterator

import pytest

from clm_core.platform.json_logs import JsonFormatter, prefect_variables
from clm_core.platform.log_fields import log_fields


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """Lines logged to `tests.json` as parsed objects."""
    parsed = list[dict[str, object]]()

    class Parsed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = self.format(record)
            assert "\n" not in text
            parsed.append(json.loads(text))

    handler = Parsed()
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("tests.json")
    log.addHandler(handler)
    yield parsed
    log.removeHandler(handler)


def test_a_line_has_the_fields_of_the_block_and_of_the_run(lines: list[dict[str, object]]) -> None:
    log = logging.getLogger("tests.json")
    with log_fields(job_id="6f", model_id="xgboost_btcusd_1h"):
        log.warning("lease of %s lost", "6f", extra={"flow_run_id": "a1"})
        with log_fields(version="v1"):
            log.warning("registered", extra={"fields": {"seconds": 2}})
    log.warning("after")
    first, second, third = lines
    assert (first["level"], first["logger"], first["message"]) == (
        "WARNING",
        "tests.json",
        "lease of 6f lost",
    )
    assert (first["job_id"], first["model_id"], first["flow_run_id"]) == ("6f", "xgboost_btcusd_1h", "a1")
    assert (second["job_id"], second["version"], second["seconds"]) == ("6f", "v1", 2)
    assert "job_id" not in third
    assert str(third["time"]).endswith("+00:00")


def test_an_exception_stays_in_its_line(lines: list[dict[str, object]]) -> None:
    try:
        raise ValueError("two\nlines, ümlaut")
    except ValueError:
        logging.getLogger("tests.json").exception("failed")
    [line] = lines
    assert "ValueError: two\nlines, ümlaut" in str(line["exception"])


def test_the_formatter_is_the_one_named_to_prefect() -> None:
    module, _, name = prefect_variables(as_json=True)["PREFECT_LOGGING_FORMATTERS_JSON_CLASS"].rpartition(".")
    assert (module, name) == (JsonFormatter.__module__, JsonFormatter.__name__)
    assert prefect_variables(as_json=False) == {}
