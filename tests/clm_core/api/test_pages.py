"""Pages for people: sessions, forms, and what the home page shows."""

import html
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promoting
import pytest
from browser import browser
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image, ImageStat
from sqlalchemy import text

from clm_core.api.app import create_app
from clm_core.api.auth import Open
from clm_core.api.route_table import ROUTES, Route
from clm_core.api.routes.models import REPORT_POLICY
from clm_core.domain.actors import Actor
from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.paper import LearningValue
from clm_core.domain.shadow_decisions import (
    ShadowAction,
    ShadowDecision,
    ShadowFigures,
    SingleLookTests,
    TTest,
)
from clm_core.domain.standings import ProductionStanding
from clm_core.domain.tokens import Secret
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.lifecycle import allocation, approvals
from clm_core.retraining import jobs
from clm_core.services import Services

MakeToken = Callable[..., str]
MakeVersion = Callable[..., ModelVersion]
SignIn = Callable[..., TestClient]
ADA = Actor(name="ada", role=Role.OPERATOR)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
EXAMPLES = {
    "model_id": "xgboost_nosuchthing_1h",
    "version": "v20200101_000000",
    "job_id": "00000000-0000-0000-0000-000000000001",
    "name": "no_such_search",
}
USUAL_TESTS = SingleLookTests(
    days=63,
    lead_bps=1.2,
    paired=TTest(statistic=1.5, degrees_of_freedom=62, p_value=0.14, low_bps=-0.4, high_bps=2.8),
    welch=TTest(statistic=0.7, degrees_of_freedom=120.3, p_value=0.48, low_bps=-2.1, high_bps=4.5),
    sharpe_difference=IntervalEstimate(value=0.8, low=-0.4, high=2.0),
)
PAGES = [pytest.param(route, id=f"{route.method} {route.path}") for route in ROUTES if route.page]


def learning_of(version: ModelVersion, ratio: tuple[float, float, float]) -> LearningValue:
    """Value of learning with a difference of Sharpe ratios and its bounds."""
    value, low, high = ratio
    return LearningValue(
        model_id=version.model_id,
        frozen=version.version,
        production="v20260301_000000",
        at=datetime(2026, 3, 4, 12, 30, tzinfo=UTC),
        since=datetime(2026, 1, 2, tzinfo=UTC),
        until=datetime(2026, 3, 4, 11, tzinfo=UTC),
        bars=1477,
        production_return=0.15,
        frozen_return=0.03,
        return_difference=IntervalEstimate(value=0.12, low=-0.05, high=0.31),
        sharpe_difference=IntervalEstimate(value=value, low=low, high=high),
    )


def form_of(page: Response) -> dict[str, str]:
    """Hidden fields of a page, by name."""
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    }


def fill_in(browsing: TestClient, secret: str, **options: Any) -> Response:
    fields = form_of(browsing.get("/login")) | {"secret": secret} | options.pop("fields", {})
    return browsing.post("/login", data=fields, follow_redirects=False, **options)


@pytest.fixture
def visit(api: FastAPI) -> Callable[..., TestClient]:
    """Function that makes a browser without a session, of the application of all tests by default."""

    def visit(clm: Services | None = None, **options: Any) -> TestClient:
        app = api if clm is None else create_app(clm)
        return TestClient(app, raise_server_exceptions=False, **options)

    return visit


@pytest.fixture
def sign_in(visit: Callable[..., TestClient], make_token: MakeToken) -> SignIn:
    """Function that makes a browser with a session in a role."""

    def sign_in(role: Role = Role.VIEWER, secret: str | None = None, **options: Any) -> TestClient:
        browsing = visit(**options)
        answer = fill_in(browsing, secret or make_token(role))
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        return browsing

    return sign_in


@pytest.mark.parametrize("route", PAGES)
def test_each_page_is_open_to_the_roles_of_the_table_only(
    route: Route, visit: Callable[..., TestClient], sign_in: SignIn
) -> None:
    path = route.path.format(**EXAMPLES)
    browsers: dict[Role | None, TestClient] = {None: visit(), **{role: sign_in(role) for role in Role}}
    for role, browsing in browsers.items():
        # a reporter sees no page with a form of its own
        page = "/" if role is not Role.REPORTER else "/login"
        data = form_of(browsing.get(page)) if route.writes else None
        answer = browsing.request(route.method, path, data=data, follow_redirects=False)
        if route.open_to is Open.BROWSER:
            assert answer.status_code < 500
        elif role is None:
            assert (answer.status_code, answer.headers["location"][:7]) == (303, "/login?")
        else:
            assert isinstance(route.open_to, Role)
            assert (answer.status_code == 403) is not role.includes(route.open_to)


def test_a_token_of_the_header_opens_no_page_and_a_session_no_route_of_the_api(
    sign_in: SignIn, client: Callable[[Role | None], TestClient]
) -> None:
    assert client(Role.ADMIN).get("/", follow_redirects=False).status_code == 303
    assert sign_in(Role.ADMIN).get("/clm/status").status_code == 401


def test_the_cookie_is_withheld_from_scripts_and_other_sites_and_names_no_secret(
    visit: Callable[..., TestClient], make_token: MakeToken
) -> None:
    secret = make_token(Role.VIEWER)
    cookie = next(
        each for each in fill_in(visit(), secret).headers.get_list("set-cookie") if "session" in each
    )
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert secret[17:] not in cookie
    over_tls = fill_in(visit(base_url="https://testserver"), secret).headers.get_list("set-cookie")
    assert all(each.startswith("__Host-clm") and "Secure" in each for each in over_tls)


def test_a_revoked_token_ends_the_session(sign_in: SignIn, make_token: MakeToken, wired: Services) -> None:
    secret = make_token(Role.OPERATOR)
    browsing = sign_in(secret=secret)
    assert browsing.get("/", follow_redirects=False).status_code == 200
    wired.ledger.tokens.revoke(
        Secret(secret).token_id, wired.ledger.tokens.authenticate(secret).actor, wired.clock()
    )
    assert browsing.get("/", follow_redirects=False).headers["location"] == "/login?next=%2F"


@pytest.mark.parametrize("lasts", [timedelta(minutes=10), timedelta(days=3)], ids=["token", "twelve-hours"])
def test_a_session_ends_with_its_token_and_after_twelve_hours(
    lasts: timedelta, sign_in: SignIn, make_token: MakeToken, wired: Services
) -> None:
    now = datetime.now(UTC)
    secret = make_token(Role.VIEWER, lasts=lasts)
    moments = iter([now, now, now + min(lasts, timedelta(hours=12)) + timedelta(minutes=1)])
    moving = replace(wired, clock=lambda: next(moments))
    browsing = sign_in(secret=secret, clm=moving)
    assert browsing.get("/", follow_redirects=False).status_code == 303


def test_a_forged_cookie_is_no_session(sign_in: SignIn) -> None:
    browsing = sign_in()
    [name] = [each for each in browsing.cookies if "session" in each]
    signed = browsing.cookies[name]
    # not the last character, of which base64 ignores some bits
    browsing.cookies[name] = f"{signed[:-9]}{'A' if signed[-9] != 'A' else 'B'}{signed[-8:]}"
    assert browsing.get("/", follow_redirects=False).status_code == 303


def test_signing_out_ends_the_session(sign_in: SignIn) -> None:
    browsing = sign_in()
    form = form_of(browsing.get("/"))
    assert browsing.post("/logout", data={"form_key": ""}, follow_redirects=False).status_code == 403
    assert browsing.post("/logout", data=form, follow_redirects=False).headers["location"] == "/login"
    assert browsing.get("/", follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        pytest.param({"form_key": ""}, {}, id="no-key"),
        pytest.param({"form_key": "0" * 64}, {}, id="key-of-another-session"),
        pytest.param({}, {"Origin": "https://evil.example"}, id="another-origin"),
        pytest.param({}, {"Origin": "null"}, id="hidden-origin"),
        pytest.param({}, {"Origin": "http://testserver:81"}, id="another-port"),
        pytest.param({}, {"Sec-Fetch-Site": "same-site"}, id="another-port-by-the-browser"),
        pytest.param({}, {"Content-Type": "application/json"}, id="no-form"),
    ],
)
def test_a_form_of_another_site_is_refused(
    fields: dict[str, str], headers: dict[str, str], visit: Callable[..., TestClient], make_token: MakeToken
) -> None:
    answer = fill_in(visit(), make_token(Role.ADMIN), fields=fields, headers=headers)
    assert answer.status_code in {403, 415}
    assert not [each for each in answer.headers.get_list("set-cookie") if "session" in each]


def test_the_eleventh_wrong_token_in_a_minute_is_limited_on_the_page_too(
    wired: Services, visit: Callable[..., TestClient], make_token: MakeToken
) -> None:
    few = ApiSettings(hosts=("testserver",), failed_logins_per_minute=2)
    browsing = visit(replace(wired, settings=wired.settings.model_copy(update={"api": few})))
    wrong = [fill_in(browsing, Secret.generate(bytes).text) for _ in range(3)]
    assert [each.status_code for each in wrong] == [401, 401, 429]
    assert 1 <= int(wrong[-1].headers["retry-after"]) <= 60
    assert "The token is unknown" in wrong[0].text
    assert fill_in(browsing, make_token(Role.VIEWER)).status_code == 303


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/models/xgboost_btcusdt_1h", "/models/xgboost_btcusdt_1h"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/clm/tokens", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_to_a_page_of_this_server(
    target: str, shown: str, visit: Callable[..., TestClient], make_token: MakeToken
) -> None:
    answer = fill_in(visit(), make_token(Role.VIEWER), fields={"next": target})
    assert answer.headers["location"] == shown


def test_a_page_allows_no_script_and_nothing_from_elsewhere(sign_in: SignIn) -> None:
    browsing = sign_in()
    for path in ("/", "/login"):
        page = browsing.get(path)
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert {"form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; "))
        assert "unsafe" not in policy
        assert (page.headers["x-content-type-options"], page.headers["cache-control"]) == (
            "nosniff",
            "no-store",
        )
        assert "<script" not in page.text
        assert " style=" not in page.text


def test_an_operator_promotes_once_with_the_champion_of_the_page_and_the_page_tells_why(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    first, second = (make_version(model_id).version for _ in range(2))
    browsing = sign_in(Role.OPERATOR)
    address = f"/models/{model_id}"
    form = form_of(browsing.get(address)) | {"reason": "`<script>alert(1)</script>`"}
    promote = f"{address}/versions/{first}/promote"
    answers = [browsing.post(promote, data=form, follow_redirects=False) for _ in range(2)]
    assert [(each.status_code, each.headers["location"]) for each in answers] == [(303, address)] * 2
    [done] = wired.ledger.promotions.committed(model_id)
    assert (done.to_version, done.actor, done.expected) == (first, "ada", True)
    page = browsing.get(address)
    assert "<script" not in page.text
    assert "<code>&lt;script&gt;alert(1)&lt;/script&gt;</code>" in page.text
    # the form of the page before the promotion names another champion
    stale = form | {"request": uuid.uuid4().hex}
    refused = browsing.post(f"{address}/versions/{second}/promote", data=stale)
    assert (refused.status_code, refused.headers["content-type"]) == (409, "text/html; charset=utf-8")
    assert wired.ledger.promotions.champion(model_id) == first


def test_an_operator_refuses_a_version_with_a_reason(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id).version
    browsing = sign_in(Role.OPERATOR)
    form = form_of(browsing.get(f"/models/{model_id}"))
    address = f"/models/{model_id}/versions/{version}/refuse"
    assert browsing.post(address, data=form | {"reason": ""}).status_code == 422
    page = browsing.post(address, data=form | {"reason": "costs have doubled"})
    assert wired.ledger.version(model_id, version).status is ModelStatus.RETIRED
    assert re.search(r"Retired</b> v\d+_\d+\s.*ada</span>\s*<p class=\"small\">costs have doubled", page.text)


def test_an_operator_cancels_a_pending_job_on_the_home_page(sign_in: SignIn, wired: Services) -> None:
    request = RetrainRequest(model_type=ModelType.LIGHTGBM, symbol="BTCUSD", requested_by="<b>grace</b>")
    job = wired.ledger.create_job(jobs.new_job(wired, request).model_copy(update={"created_at": LONG_AGO}))
    browsing = sign_in(Role.OPERATOR)
    viewing = sign_in(Role.VIEWER)
    page = browsing.get("/")
    assert "manual, by &lt;b&gt;grace&lt;/b&gt;" in page.text
    assert f"/jobs/{job.id}/cancel" not in viewing.get("/").text
    form = {"form_key": form_of(page)["form_key"]}
    assert viewing.post(f"/jobs/{job.id}/cancel", data=form).status_code == 403
    answer = browsing.post(f"/jobs/{job.id}/cancel", data=form)
    assert (answer.url.path, f"/jobs/{job.id}" in answer.text) == ("/", False)
    assert wired.ledger.job(job.id).cancelled_by == "ada"
    refused = browsing.post(f"/jobs/{job.id}/run", data=form)
    assert refused.status_code == 409
    assert "only a pending job can be started" in refused.text


@pytest.mark.parametrize("decide", ["promote", "refuse"])
def test_a_form_of_the_page_ends_the_alert_about_the_approval_at_once(
    decide: str, sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id).version
    decision = ShadowDecision(
        action=ShadowAction.PROMOTE, reasons=(), progress="", waits_for="approval", needs_approval=True
    )
    wired.ledger.shadow_decisions.record(None, model_id, version, None, decision, wired.clock())
    approvals.keep_forms(wired)
    assert f"{model_id}@{version}" in [each.subject for each in wired.alerts.lasting()]
    browsing = sign_in(Role.OPERATOR)
    form = form_of(browsing.get(f"/models/{model_id}")) | {"reason": "tested"}
    browsing.post(f"/models/{model_id}/versions/{version}/{decide}", data=form)
    assert f"{model_id}@{version}" not in [each.subject for each in wired.alerts.lasting()]


def test_a_viewer_and_a_form_without_its_key_promote_nothing(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id).version
    address = f"/models/{model_id}"
    viewing = sign_in(Role.VIEWER)
    operating = sign_in(Role.OPERATOR)
    form = form_of(operating.get(address)) | {"reason": "tested"}
    assert "/promote" not in viewing.get(address).text
    own = form | {"form_key": form_of(viewing.get(address))["form_key"]}
    without = form | {"form_key": ""}
    elsewhere = {"Origin": "https://evil.example"}
    promote = f"{address}/versions/{version}/promote"
    answers = [
        viewing.post(promote, data=own),
        operating.post(promote, data=without),
        operating.post(promote, data=own),
        operating.post(promote, data=form, headers=elsewhere),
    ]
    assert [each.status_code for each in answers] == [403] * 4
    assert "ask an operator" in answers[0].text
    assert wired.ledger.promotions.champion(model_id) is None


def test_a_model_s_page_has_the_checks_and_the_versions_and_none_for_an_unknown_model(
    sign_in: SignIn, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    browsing = sign_in()
    page = html.unescape(browsing.get(f"/models/{model_id}").text)
    assert f"{version.version}" in page
    for words in ("Sharpe ratio", "max drawdown", "\u2713 met", "Judged", "Trained", "Tear sheet"):
        assert words in page
    explained = browsing.get(f"/models/{model_id}/versions/{version.version}/explanation")
    assert explained.status_code == 200
    assert explained.headers["content-security-policy"] == REPORT_POLICY
    # the bars of the made-up model are not stored
    assert "Live in the cone" in explained.text
    assert "No cone: there is no series" in explained.text
    for unknown in (
        "/models/xgboost_unknown_1h",
        "/models/..%20x",
        f"/models/{model_id}/versions/v20200101_000000/explanation",
    ):
        missing = browsing.get(unknown)
        assert (missing.status_code, "<h1>Not Found</h1>" in missing.text) == (404, True)


def test_a_model_s_page_says_towards_which_regime_a_version_was_trained(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id)
    browsing = sign_in()
    assert "towards" not in browsing.get(f"/models/{model_id}").text
    statement = (
        "UPDATE model_versions SET params = params || :params WHERE model_id = :id AND version = :label"
    )
    changed = {"params": '{"regime": "calm"}', "id": model_id, "label": version.version}
    with wired.ledger._engine.begin() as connection:
        assert connection.execute(text(statement), changed).rowcount == 1
    assert "towards calm" in browsing.get(f"/models/{model_id}").text


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        pytest.param((0.4, -0.3, 1.1), "Nothing is proved so far", id="unproved"),
        pytest.param((1.4, 0.3, 2.5), "Learning has paid off", id="gain"),
        pytest.param((-1.4, -2.5, -0.3), "Learning has cost", id="loss"),
    ],
)
def test_pages_say_what_continuous_learning_is_worth_with_interval_and_time(
    ratio: tuple[float, float, float],
    words: str,
    sign_in: SignIn,
    make_version: MakeVersion,
    model_id: str,
    wired: Services,
) -> None:
    value = learning_of(make_version(model_id), ratio)
    wired.ledger.learning_values.record(value)
    browsing = sign_in()
    page = " ".join(html.unescape(browsing.get(f"/models/{model_id}").text).split())
    shown = (
        '<b>{:+.2f}</b> <span class="muted small">Sharpe ratio at equal volatility, 95 %: {:+.2f} to {:+.2f}<'
    )
    assert shown.format(*ratio) in page
    assert "<b>+12.0%</b>" in page
    assert f"against the first champion <b>{value.frozen}</b>" in page
    assert words in page
    assert f"As of {value.at:%Y-%m-%d %H:%M} UTC" in page
    home = " ".join(browsing.get(f"/?name={model_id}").text.split())
    assert f"Learning since 2026-01-02: <b>{ratio[0]:+.2f}</b> Sharpe ratio" in home


def test_a_first_champion_that_has_served_all_along_leaves_no_difference_to_show(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id).version
    reason = f"the first champion {version} has served all along, so there is no difference to measure"
    alone = LearningValue(
        model_id=model_id,
        frozen=version,
        production=version,
        at=datetime(2026, 3, 4, tzinfo=UTC),
        reason=reason,
    )
    browsing = sign_in()
    home = f"/?name={model_id}"
    before = browsing.get(home).text.count("Learning since")
    wired.ledger.learning_values.record(alone)
    page = browsing.get(f"/models/{model_id}").text
    assert f"The{reason[3:]} (as of 2026-03-04 00:00 UTC)" in page
    assert browsing.get(home).text.count("Learning since") == before


def test_a_model_s_page_marks_the_usual_tests_as_valid_for_one_look(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    version = make_version(model_id).version
    decision = ShadowDecision(
        action=ShadowAction.CONTINUE,
        reasons=("neither better nor worse",),
        progress="lead: 63 days",
        figures=ShadowFigures(single_look=USUAL_TESTS),
    )
    wired.ledger.shadow_decisions.record(None, model_id, version, None, decision, wired.clock())
    browsing = sign_in()
    page = html.unescape(browsing.get(f"/models/{model_id}").text)
    assert "<summary>Usual tests, not valid when looked at repeatedly</summary>" in page
    shown = re.search(
        r"Paired t-test</td>.*?</tr>.*?Welch's t-test</td>.*?</tr>.*?Bootstrap.*?</tr>", page, re.DOTALL
    )
    assert shown is not None
    cells = [cell for cell in re.sub(r"<[^>]+>", "|", shown[0]).split("|") if cell.strip()]
    assert cells == [
        *("Paired t-test", "+1.20 bps", "-0.40 to +2.80", "0.140"),
        *("Welch's t-test", "+1.20 bps", "-2.10 to +4.50", "0.480"),
        *("Bootstrap", "+0.80 Sharpe", "-0.40 to +2.00"),
    ]
    assert "Usual tests" not in browsing.get(f"/?name={model_id}").text


def test_a_model_s_page_has_the_figures_of_its_fills_and_of_allocations(
    sign_in: SignIn, make_version: MakeVersion, model_id: str, wired: Services
) -> None:
    first, second = (make_version(model_id).version for _ in range(2))
    browsing = sign_in()
    address = f"/models/{model_id}"
    assert "Reported fills" not in browsing.get(address).text
    promoting.promote(wired, model_id, first, ADA, "tested", wired.clock())
    [change] = wired.ledger.promotions.committed(model_id)
    standing = ProductionStanding(
        model_id=model_id,
        version=first,
        since=change.at,
        at=wired.clock(),
        bars=0,
        trades=0,
        drawdown=None,
        hard_stop=0.2,
        equity=(),
        band=(),
        expected=None,
        sentences=(),
        fills=("BTCUSD: 40 fills, slippage 1.50 bps <beside> 2.00 bps modelled",),
    )
    wired.ledger.standings.record(standing)
    allocation.start(wired, model_id, [second], ADA, "to compare")
    allocation.stop(wired, model_id, ADA, "costs too much")
    page = browsing.get(address).text
    section = page.partition("<h2>Reported fills</h2>")[2].partition("</section>")[0]
    assert "<li>BTCUSD: 40 fills, slippage 1.50 bps &lt;beside&gt; 2.00 bps modelled</li>" in section
    line = page.partition("<h2>Time line</h2>")[2]
    assert line.index("<b>Allocation ended</b>") < line.index("<b>Allocation started</b>")
    assert "stopped: costs too much" in line


def test_an_installation_without_models_says_what_to_do(
    wired: Services, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(wired.ledger.promotions), "models", lambda _: [])
    page = sign_in().get("/").text
    assert "No model yet" in page
    assert "clm demo" in page
    assert "clm retrain" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_signs_in_and_shows_the_page_in_light_and_dark_and_on_a_telephone(
    serve: Any, wired: Services, make_token: MakeToken, tmp_path: Path
) -> None:
    pictures = dict[str, int]()
    with serve(wired) as server, browser() as seen:
        seen.look(1200, 800)
        seen.open(f"{server.url}/login")
        seen.submit({"secret": make_token(Role.VIEWER)})
        assert seen.run("location.pathname") == "/"
        for name, width, dark in (("light", 1200, False), ("dark", 1200, True), ("telephone", 400, False)):
            seen.look(width, 800, dark)
            seen.open(f"{server.url}/")
            assert seen.run("document.documentElement.scrollWidth") == width
            file = tmp_path / f"{name}.png"
            seen.picture(file)
            with Image.open(file) as picture:
                pictures[name] = round(ImageStat.Stat(picture.convert("L")).mean[0])
                assert len(picture.convert("RGB").getcolors(2**24) or ()) > 20
        # what a content security policy refuses is reported on the console
        assert not [each for each in seen.violations if "Content Security Policy" in each]
    assert pictures["light"] > 200
    assert pictures["dark"] < 60
