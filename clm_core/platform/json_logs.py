"""Log lines as JSON, one object a line, with the ids of the run, job and model they are about."""

import json
import logging
import sys
from datetime import UTC, datetime

from clm_core.platform import tracing
from clm_core.platform.log_fields import current_fields

OF_PREFECT = ("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name")
"""Fields that Prefect adds to the lines of a run."""
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class JsonFormatter(logging.Formatter):
    """Formatter of log lines as JSON: time, level, logger, message, process, the fields of the block and of
    the line, trace and span, and the text of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **current_fields(),
            **tracing.ids(),
            **{name: str(value) for name in OF_PREFECT if (value := getattr(record, name, None))},
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(as_json: bool) -> None:
    """Write the log lines of this process to standard error, as JSON or as text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler])


def prefect_variables(as_json: bool) -> dict[str, str]:
    """Variables for Prefect's processes, so that their lines are JSON too."""
    if not as_json:
        return {}
    return {
        "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": f"{__name__}.JsonFormatter",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_MARKUP": "false",
    }
