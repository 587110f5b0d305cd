"""Pictures of a verdict for the documentation: on the run's page, and the tear sheet.

CLM_HOME=HOME clm demo, then CLM_HOME=HOME python scripts/screenshot.py; needs Chromium (`chromium` on PATH).
A Prefect server of its own serves the pages, without the password that the server of a home asks for.
"""

import subprocess
from pathlib import Path

import httpx
from PIL import Image

from clm_core.domain.kinds import artifact_key
from clm_core.platform.prefect_server import server_environment
from clm_core.platform.shared_prefect import shared_server
from clm_core.services import Services, open_services
from clm_core.settings import load_settings

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MODEL = "xgboost_btcusd_1h"
LOADED_WITHIN_MS = 20_000
COLOURS = 160
"""Colours of a picture, for a small file."""


def main() -> None:
    settings = load_settings()
    with open_services(settings) as services:
        newest, *_ = services.ledger.versions(model_id=MODEL, limit=1)
        sheet = services.reports / MODEL / f"{newest.version}.html"
        take(sheet.as_uri(), IMAGES / "tear-sheet.png", 960, 1250)
        take_verdict(services, settings.home / "screenshot")


def take_verdict(services: Services, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    database = services.database
    shown = {"artifacts": {"key": {"any_": [f"{artifact_key(MODEL)}-verdict"]}}, "sort": "CREATED_DESC"}
    with shared_server(folder, lambda url: server_environment(database, folder, url)) as (url, ready):
        ready()
        answer = httpx.post(f"{url}/artifacts/filter", json=shown)
        answer.raise_for_status()
        newest, *_ = answer.json()
        page = f"{url.removesuffix('/api')}/v2/artifacts/artifact/{newest['id']}"
        take(page, IMAGES / "verdict-page.png", 1000, 1690)


def take(address: str, picture: Path, width: int, height: int) -> None:
    """Picture of a page, sizes in pixels."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
        f"--virtual-time-budget={LOADED_WITHIN_MS}",
        f"--screenshot={picture}",
        address,
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    print(picture)


if __name__ == "__main__":
    main()
