"""JWTs of an OpenID Connect provider, served on a local port."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from clm_core.api.app import create_app
from clm_core.domain.api_settings import OIDCSettings
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGERS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@dataclass(frozen=True)
class Provider:
    issuer: str

    def sign(self, key: Any = KEY, algorithm: str = "RS256", kid: str = "first", **changed: Any) -> str:
        """A JWT of an operator; a claim changed to None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "clm",
            "sub": "4711",
            "email": "ada@example.org",
            "roles": ["quants"],
            "iat": now,
            "exp": now + 300,
        }
        kept = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(kept, key, algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            pages = {
                "/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{issuer}/keys"},
                "/keys": {"keys": [jwk | {"kid": "first", "use": "sig", "alg": "RS256"}]},
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(pages[self.path]).encode())

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        issuer = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Provider(issuer)
        server.shutdown()


Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def ask(wired: Services, provider: Provider) -> Ask:
    return asking(wired, OIDCSettings(issuer=provider.issuer, audience="clm", roles=ROLES))


ROLES = {"quants": Role.OPERATOR, "leads": Role.ADMIN, "guests": Role.VIEWER}


def asking(services: Services, oidc: OIDCSettings) -> Ask:
    api = services.settings.api.model_copy(update={"oidc": oidc})
    settings = services.settings.model_copy(update={"api": api})
    client = TestClient(create_app(replace(services, settings=settings)), raise_server_exceptions=False)

    def ask(token: str, path: str = "/clm/status") -> tuple[int, str]:
        answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.text

    return ask


def test_a_valid_jwt_of_the_provider_is_accepted(ask: Ask, provider: Provider) -> None:
    assert ask(provider.sign())[0] == 200


@pytest.mark.parametrize(
    ("roles", "status"),
    [("quants", 403), (["guests", "leads"], 200), (["strangers"], 401), (None, 401), ({"leads": 1}, 401)],
    ids=["too small a role", "the greatest of two", "a word without a role", "no claim", "no list"],
)
def test_the_claim_decides_the_role(ask: Ask, provider: Provider, roles: Any, status: int) -> None:
    assert ask(provider.sign(roles=roles), "/clm/tokens")[0] == status


def test_tokens_of_clm_are_accepted_beside_the_provider(ask: Ask, make_token: Callable[..., str]) -> None:
    assert ask(make_token(Role.VIEWER))[0] == 200


def hmac_with_public_key(provider: Provider) -> str:
    """Forged JWT signed with the public key as HMAC secret, built by hand because PyJWT refuses."""
    import base64
    import hashlib
    import hmac

    head, body, _ = provider.sign().split(".")
    forged = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first","typ":"JWT"}').rstrip(b"=").decode()
    signed = f"{forged}.{body}".encode()
    signature = hmac.new(PUBLIC_PEM, signed, hashlib.sha256).digest()
    assert head != forged
    return f"{forged}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda provider: provider.sign(STRANGERS), id="another's key"),
        pytest.param(lambda provider: provider.sign(kid="second"), id="an unknown key"),
        pytest.param(lambda provider: provider.sign(None, "none"), id="no signature"),
        pytest.param(hmac_with_public_key, id="the public key as a secret"),
        pytest.param(lambda provider: provider.sign(KEY, "RS512"), id="an algorithm that is not pinned"),
        pytest.param(lambda provider: provider.sign(aud="somebody else"), id="for somebody else"),
        pytest.param(lambda provider: provider.sign(iss="http://127.0.0.1:1"), id="of another issuer"),
        pytest.param(lambda provider: provider.sign(exp=int(time.time()) - 60), id="of yesterday"),
        pytest.param(lambda provider: provider.sign(nbf=int(time.time()) + 600), id="of tomorrow"),
        pytest.param(lambda provider: provider.sign(exp=None), id="for ever"),
        pytest.param(lambda provider: provider.sign(sub=None), id="of nobody"),
        pytest.param(lambda provider: provider.sign(email="a\nb"), id="a name that is none"),
        pytest.param(lambda provider: provider.sign() + "x", id="a changed signature"),
        pytest.param(lambda provider: "a.b.c", id="no JWT"),
    ],
)
def test_a_jwt_of_another_issuer_audience_time_or_key_is_refused(
    forge: Callable[[Provider], str], ask: Ask, provider: Provider
) -> None:
    status, body = ask(forge(provider))
    assert status == 401, body


def test_a_small_clock_difference_is_tolerated(ask: Ask, provider: Provider) -> None:
    assert ask(provider.sign(exp=int(time.time()) - 10))[0] == 200


def test_an_unreachable_provider_is_a_503_and_grants_no_access(wired: Services, provider: Provider) -> None:
    away = asking(wired, OIDCSettings(issuer="http://127.0.0.1:9", audience="clm", roles=ROLES))
    assert away(provider.sign(iss="http://127.0.0.1:9"))[0] == 503


def test_without_a_provider_a_jwt_is_refused(api: FastAPI, provider: Provider) -> None:
    client = TestClient(api, raise_server_exceptions=False)
    answer = client.get("/clm/status", headers={"Authorization": f"Bearer {provider.sign()}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_symmetric_algorithm_cannot_be_configured(algorithm: str) -> None:
    with pytest.raises(ValueError, match="algorithms"):
        OIDCSettings.model_validate(
            {"issuer": "https://id.example", "audience": "clm", "roles": ROLES, "algorithms": [algorithm]}
        )
