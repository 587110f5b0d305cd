"""Settings of the REST API: `[api]`, with the OpenID Connect provider."""

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clm_core.domain.vocabulary import Role

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric signature algorithms of JWTs (RFC 7518): only the holder of the private key can sign."""


class OIDCSettings(BaseModel):
    """OpenID Connect provider whose JWTs the REST API accepts beside its own tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    issuer: Annotated[str, Field(pattern=r"^https?://[^/]")]
    """Issuer, exactly as in the `iss` claim of the JWTs."""
    audience: str = Field(min_length=1)
    """Required `aud` claim: a JWT for another audience is refused."""
    jwks_url: str | None = None
    """URL of the JSON Web Key Set; by default read from `/.well-known/openid-configuration` of the issuer."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256",), min_length=1)
    """Accepted algorithms; a JWT signed with any other is refused."""
    role_claim: str = "roles"
    """Claim with groups or roles, a string or a list of strings."""
    roles: dict[str, Role] = Field(min_length=1)
    """Role granted for each value of the role claim: `{ quants = "operator", leads = "admin" }`."""
    name_claim: str = "email"
    """Claim used as the name in the audit log; `sub` where missing."""
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    """Tolerated clock difference between the provider and the API, seconds."""


def _ip_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError("must be an IP address, such as 0.0.0.0") from error


class ApiSettings(BaseModel):
    """REST API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, AfterValidator(_ip_address)] | None = None
    """IP address to listen on; by default 127.0.0.1, in a container of its own 0.0.0.0 (all addresses)."""

    public_url: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    """Address of the home page for links in Prefect's pages: `https://clm.example`; by default the address of
    `clm up` on this machine."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Accepted values of the Host header, without port; a request for any other host is refused."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies whose X-Forwarded-For header is trusted."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=16_777_216)
    """Maximum size of the body of a request, bytes."""
    body_seconds: float = Field(default=5.0, gt=0, le=60)
    """Maximum time for the body of a request to arrive, seconds."""
    head_seconds: float = Field(default=10.0, gt=0, le=60)
    """Maximum time for the head of a request to arrive, seconds."""
    idle_seconds: int = Field(default=5, ge=1, le=600)
    """Time for which a connection without a request stays open, seconds."""
    write_seconds: float = Field(default=30.0, gt=0, le=600)
    """Maximum time for a client to take a written piece of a response, seconds."""
    max_connections: int = Field(default=500, ge=1)
    """Number of connections from which on a new one ends the one that has waited longest for its client."""
    failed_logins_per_minute: int = Field(default=10, ge=1)
    """Maximum number of wrong tokens from an address in a minute."""
    writes_per_minute: int = Field(default=60, ge=1)
    """Maximum number of writes of a token in a minute."""
    oidc: OIDCSettings | None = None
    max_event_streams: int = Field(default=50, ge=1)
    """Maximum number of simultaneous subscribers to GET /clm/events."""
