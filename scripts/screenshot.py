"""Pictures for the documentation; needs Chromium (`chromium` on PATH).

CLM_HOME=HOME python scripts/screenshot.py: the verdict of a retrain, on the page of the run and as a tear
sheet. The retrain is a run of a Prefect server of its own, without the password that the server of
`clm up` asks for.

CLM_HOME=THIRD with the retrains of docs/tutorial/from-fail-to-pass.md, the last of them in production, then
CLM_HOME=THIRD python scripts/screenshot.py tutorial: the comparison and the tear sheet of the tutorial.

CLM_HOME=OTHER python scripts/shown_home.py, then CLM_HOME=OTHER python scripts/screenshot.py home: the home
page.
"""

import secrets
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from getpass import getuser
from pathlib import Path

import httpx
import uvicorn
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browser import browser

from clm_core.api.__main__ import configuration
from clm_core.api.app import create_app
from clm_core.cli.retrain import DEMO_DAYS
from clm_core.domain.actors import SYSTEM
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import artifact_key
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.ledger.naming import find_version
from clm_core.lifecycle.comparison import compare_versions, write_page
from clm_core.platform.prefect_server import load_flow, own_server, prepare_environment
from clm_core.retraining.results import RetrainResult
from clm_core.services import Services, open_services
from clm_core.settings import load_settings

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MODEL = "xgboost_btcusd_1h"
TUTORIAL_MODEL = "lightgbm_madeup_1h"
LOADED_WITHIN_MS = 20_000
COLOURS = 160
"""Colours of a picture, for a small file."""


def main() -> None:
    settings = load_settings()
    with open_services(settings) as services:
        if sys.argv[1:] == ["home"]:
            take_home_page(services, IMAGES / "home-page.png")
            return
        if sys.argv[1:] == ["tutorial"]:
            take_tutorial(services)
            return
        prepare_environment(settings.home)
        version = take_verdict(services, settings.home / "screenshot")
        sheet = services.reports / MODEL / f"{version}.html"
        take(sheet.as_uri(), IMAGES / "tear-sheet.png", 960, 1250)


def take_tutorial(services: Services) -> None:
    """Comparison of the production version with the version before, and its tear sheet."""
    passed = find_version(services.ledger, f"{TUTORIAL_MODEL}@production")
    versions = services.ledger.versions(model_id=TUTORIAL_MODEL, limit=100)
    before = max((each for each in versions if each.version < passed.version), key=lambda each: each.version)
    page = write_page(services, compare_versions(services, before, passed))
    with browser() as seen:
        seen.look(960, 620)
        seen.open(page.as_uri())
        while not seen.run("document.querySelector('#equity-curves .main-svg') !== null"):
            time.sleep(0.1)
        seen.run("document.getElementById('section-equity').scrollIntoView()")
        picture = IMAGES / "tutorial-compare.png"
        seen.picture(picture, whole=False)
        _shrink(picture)
    sheet = services.reports / TUTORIAL_MODEL / f"{passed.version}.html"
    take(sheet.as_uri(), IMAGES / "tutorial-pass.png", 960, 1180)


def take_verdict(services: Services, folder: Path) -> str:
    """Retrain, and take a picture of the run's page; the label of the version."""
    request = RetrainRequest(
        model_type=ModelType.XGBOOST,
        symbol="BTCUSD",
        dataset_span_days=DEMO_DAYS,
        requested_by=getuser(),
        again=True,
    )
    shown = {"artifacts": {"key": {"any_": [f"{artifact_key(MODEL)}-verdict"]}}, "sort": "CREATED_DESC"}
    with own_server(services.database, folder) as url:
        retrained: RetrainResult = load_flow("flows.retrain.retrain")(request)
        answer = httpx.post(f"{url}/artifacts/filter", json=shown)
        answer.raise_for_status()
        newest, *_ = answer.json()
        page = f"{url.removesuffix('/api')}/v2/artifacts/artifact/{newest['id']}"
        take(page, IMAGES / "verdict-page.png", 1000, 1690)
        return retrained.version.version


def take_home_page(services: Services, picture: Path) -> None:
    """Picture of the home page as a viewer sees it, served for the moment."""
    now = services.clock()
    secret = Secret.generate(secrets.token_bytes)
    token = new_token(secret, "ada", Role.VIEWER, SYSTEM, now, timedelta(hours=1))
    services.ledger.tokens.issue(token, secret, SYSTEM)
    with socket.socket() as listening, browser() as seen:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(configuration(create_app(services), services.settings.api, port))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        seen.look(1180, 760)
        seen.open(f"http://127.0.0.1:{port}/login")
        seen.submit({"secret": secret.text})
        seen.picture(picture)
        server.should_exit = True
        thread.join()
    services.ledger.tokens.revoke(token.id, SYSTEM, services.clock())
    _shrink(picture)


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
    _shrink(picture)


def _shrink(picture: Path) -> None:
    Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    print(picture)


if __name__ == "__main__":
    main()
