"""Writes docs/reference/events.schema.json, the schema of published events: python scripts/event_schema.py"""

import json
import sys
from pathlib import Path

from clm_core.domain.published_events import event_schema

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "events.schema.json"


def content() -> str:
    return json.dumps(event_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(0 if PAGE.write_text(content(), encoding="utf-8") else 1)
