"""Settings: CLM_ variables over a TOML file over defaults; whatever is unknown or out of range is refused."""

import os
import re
import tomllib
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

from clm_core.decisions.health import WatchRules
from clm_core.decisions.retraining import TriggerPolicy
from clm_core.domain.costs import Costs
from clm_core.domain.errors import SettingsError
from clm_core.domain.execution import Execution
from clm_core.domain.faults import Fault
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import Role
from clm_core.domain.walk_forward import WalkForwardPlan

CONFIG_VARIABLE = "CLM_CONFIG"
DEFAULT_FILE = Path("clm.toml")

FEWEST_BYTES = 24
"""Of a secret that signs."""

Key = tuple[str, ...]
"""Where a setting stands: ("costs", "fee_bps") is fee_bps under [costs], or CLM_COSTS__FEE_BPS."""


class SigningStyle(StrEnum):
    """How a sender of webhooks signs them: an HMAC-SHA-256 always, over what and in which headers differs."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    GITHUB = "github"
    """The body alone, in X-Hub-Signature-256."""
    MLFLOW = "mlflow"
    """Id, time and body, in headers X-MLflow-…"""


def signing_key(secret: SecretStr, style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS) -> bytes:
    """The bytes that a webhook's secret stands for: of Standard Webhooks in base64, else as it is.

    Raises:
        ValueError: it stands for none, or for too few to be safe.
    """
    if style is not SigningStyle.STANDARD_WEBHOOKS:
        key = secret.get_secret_value().encode()
        if len(key) < FEWEST_BYTES:
            raise ValueError(f"must be at least {FEWEST_BYTES} characters long")
        return key
    try:
        key = b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ValueError("must be base64, after whsec_") from error
    if not FEWEST_BYTES <= len(key) <= 64:
        raise ValueError("must be 24 to 64 bytes long")
    return key


def _usable(secret: SecretStr) -> SecretStr:
    signing_key(secret)
    return secret


def _usable_in_style(secret: SecretStr, info: ValidationInfo) -> SecretStr:
    # it is not there when it was refused itself
    if "style" in info.data:
        signing_key(secret, info.data["style"])
    return secret


WebhookSecret = Annotated[SecretStr, AfterValidator(_usable)]
"""24 to 64 random bytes in base64, after `whsec_`."""


def _with_scheme(url: SecretStr) -> SecretStr:
    if not re.match(r"[a-z][a-z0-9+.-]*://.", url.get_secret_value()):
        raise ValueError("must look like slack://... or json://host/path")
    return url


def _of_http(url: SecretStr) -> SecretStr:
    if not re.match(r"https?://[^/]", url.get_secret_value()):
        raise ValueError("must look like https://host/path")
    return url


class TrainingSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    apart: bool = True
    """Whether a model is trained in a process of its own, which a time limit or a cancellation does end."""
    limit_seconds: float = Field(default=21_600.0, gt=0)
    """How long a training in a process of its own may take: six hours."""


class AlertSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[Annotated[SecretStr, AfterValidator(_with_scheme)], ...] = ()
    """Where alerts go, in the words of apprise: `slack://...`, `pagerduty://...`, `json://host/path`."""


class Subscriber(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[SecretStr, AfterValidator(_of_http)]
    """`https://host/path`; shown nowhere, for many a service is opened by nothing but its path."""
    secret: WebhookSecret
    """What its deliveries are signed with."""


class EventSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribers: tuple[Subscriber, ...] = ()
    """Who is told of every event by a signed HTTP request."""


class OnExpiry(StrEnum):
    ASK = "ask"
    """Alert an admin, who confirms or replaces it; it goes on serving meanwhile."""
    ROLL_BACK = "roll_back"
    """Let the version before serve again."""


class GuardSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    on_expiry: OnExpiry = OnExpiry.ASK
    """What becomes of a forced promotion whose time is over."""


class MaintenanceSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    verify_minutes: float = Field(default=60.0, ge=0, le=10_080)
    """How often the scheduled upkeep reads every file of what serves; 0: at every pass."""


Port = Annotated[int, Field(ge=1024, le=65535)]


class StackSettings(BaseModel):
    """What `clm up` runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefect_port: Port | None = None
    """None, as with the other ports: 4200 or the next free one, the same every time."""
    mlflow_port: Port | None = None
    """None: 5000 or the next free one."""
    api_port: Port | None = None
    """None: 8000 or the next free one."""
    concurrent_runs: int = Field(default=2, ge=1)
    """How many flows the worker runs at once."""


class DeploySettings(BaseModel):
    """Where deployed flows run: process, docker and kubernetes pools differ in these alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_pool: str = "clm"
    """Name of Prefect's work pool; made by `clm deploy` where it is missing."""
    work_pool_type: str = "process"
    """`process`, `docker` or `kubernetes`."""
    job_variables: dict[str, Any] = {}
    """Handed to the pool for every run: the image, resources, environment."""


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of signatures that only the holder of a private key can make."""


class OIDCSettings(BaseModel):
    """An identity provider whose JWTs open the REST API, beside our own tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(pattern=r"^https?://[^/]")]
    """As its JWTs name it in `iss`, to the letter."""
    audience: str = Field(min_length=1)
    """What its JWTs must name in `aud`: one made for somebody else opens nothing here."""
    jwks_url: str | None = None
    """Where its keys are; None: where its `/.well-known/openid-configuration` says."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256",), min_length=1)
    """No other is believed, whatever a JWT says of itself."""
    role_claim: str = "roles"
    """The claim that names groups or roles, a word or a list of them."""
    roles: dict[str, Role] = Field(min_length=1)
    """What each word of that claim allows: `{ quants = "operator", leads = "admin" }`."""
    name_claim: str = "email"
    """The claim the audit names people by; `sub` where it is missing."""
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far the provider's clock and ours may differ."""


class ApiSettings(BaseModel):
    """The REST API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names it may be asked by, without port; a request for any other is refused."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose word on where a request came from (X-Forwarded-For) is believed."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=16_777_216)
    body_seconds: float = Field(default=5.0, gt=0, le=60)
    """How long a request's body may take to arrive."""
    failed_logins_per_minute: int = Field(default=10, ge=1)
    """Wrong tokens, from one address."""
    writes_per_minute: int = Field(default=60, ge=1)
    """Of one token."""
    oidc: OIDCSettings | None = None
    max_event_streams: int = Field(default=50, ge=1)
    """Subscribers to GET /clm/events at a time."""


class WebhookSource(BaseModel):
    """Somebody who may post webhooks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS
    secrets: tuple[Annotated[SecretStr, AfterValidator(_usable_in_style)], ...]
    """Shared with the sender; several while one replaces another: what any of them signed is believed.
    24 to 64 bytes in base64; for GitHub and MLflow a text of at least 24 characters."""

    @property
    def keys(self) -> list[bytes]:
        return [signing_key(secret, self.style) for secret in self.secrets]


class PolicySource(BaseModel):
    """Where the levels come from that a version is judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    """A policy document (TOML); None: the one that comes with the package."""
    preset: str | None = None
    """In place of the one the document chooses: "strict", "thresholds-only" or one of its own."""
    store: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """A policy store whose limits replace the five criteria, as `package.module:name`: an object with
    `get(key, default)`, or a function without arguments that makes one."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="CLM_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".clm")
    """Folder of all state; a relative one is taken from the folder the program is started in."""
    database_url: SecretStr | None = None
    """A PostgreSQL server, `postgresql://user:password@host:5432/database`; None: our own, under home."""
    costs: Costs = Costs()
    execution: Execution = Execution()
    policy: PolicySource = PolicySource()
    walk_forward: WalkForwardPlan = WalkForwardPlan()
    training: TrainingSettings = TrainingSettings()
    triggers: TriggerPolicy = TriggerPolicy()
    watch: WatchRules = WatchRules()
    lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    """How long a job may go without a sign of life before it is ended as failed; 1..3600."""
    alerts: AlertSettings = AlertSettings()
    events: EventSettings = EventSettings()
    guard: GuardSettings = GuardSettings()
    upkeep: MaintenanceSettings = MaintenanceSettings()
    max_version_mib: int = Field(default=256, ge=1)
    """Most that a version may hold in MLflow to be fetched, MiB."""
    universe: tuple[Market, ...] = (Market(symbol="BTCUSD"),)
    """What is retrained on a schedule: `[[universe]]` in the file."""
    stack: StackSettings = StackSettings()
    deploy: DeploySettings = DeploySettings()
    api: ApiSettings = ApiSettings()
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")], WebhookSource] = {}
    """Who may post webhooks, by the name in the URL: [webhooks.monitor] is POST /webhooks/monitor."""
    fault: Fault | None = None
    """For tests of crashes only: the process kills itself at this point."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not re.match(r"postgres(ql)?(\+\w+)?://", url.get_secret_value()):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        return url

    @field_validator("universe")
    @classmethod
    def _each_model_once(cls, universe: tuple[Market, ...]) -> tuple[Market, ...]:
        series = Counter((market.symbol.upper(), market.timeframe) for market in universe)
        if twice := [" ".join(key) for key, count in series.items() if count > 1]:
            raise ValueError(f"{', '.join(twice)} is listed twice: list each symbol and timeframe once")
        return universe

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read(settings_file()))


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable or key is unknown, or a value is not allowed; names all of them.
    """
    problems = list(_unknown_variables(os.environ))
    if not problems:
        try:
            return Settings()
        except ValidationError as error:
            problems = [_problem(details) for details in error.errors()]
        except UnreadableVariable as error:
            problems = [f"{error}: lists and tables are written as JSON in a variable."]
    # Raised outside the handler: the validation error would carry a secret into the traceback.
    raise SettingsError("\n".join(problems))


def effective(settings: Settings) -> dict[str, Any]:
    """The settings in force, ready to print: secrets are stars."""
    return settings.model_dump(mode="json")


def settings_file() -> Path | None:
    """Where settings are read from beside the variables; None when there is no such file."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named is not None:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {file} cannot be read ({error.strerror}): correct or unset {CONFIG_VARIABLE}."
        ) from error
    except ValueError as error:
        raise SettingsError(f"The settings file {file} is not valid TOML: {error}.") from error


def _fields(group: type[BaseModel], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*above, name))
        else:
            yield (*above, name), field.annotation


def _variable(key: Key) -> str:
    return "CLM_" + "__".join(key).upper()


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    valid = [CONFIG_VARIABLE, *(_variable(key) for key, _ in _fields(Settings))]
    for name in sorted(environment):
        if name.upper().startswith("CLM_") and name.upper() not in valid:
            yield f"{name} is not a setting: {_hint(name.upper(), valid)}"


def _problem(details: ErrorDetails) -> str:
    key = tuple(map(str, details["loc"]))
    setting = next((known for known, _ in _fields(Settings) if key[: len(known)] == known), key)
    if details["type"] == "extra_forbidden":
        valid = [".".join(key) for key, _ in _fields(Settings)]
        return f"{'.'.join(key)} in {settings_file()} is not a setting: {_hint('.'.join(key), valid)}"
    value = "(hidden)" if setting in _secrets() else repr(details["input"])
    reason = details["msg"].removeprefix("Value error, ")
    return f"{'.'.join(key)} = {value}, set by {_origin(setting)}, is not allowed: {reason}."


def _secrets() -> list[Key]:
    return [key for key, annotation in _fields(Settings) if _holds_secret(annotation)]


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))


def _origin(key: Key) -> str:
    variables = {name.upper(): name for name in os.environ}
    return variables.get(_variable(key), str(settings_file()))


def _hint(name: str, valid: Sequence[str]) -> str:
    [closest] = get_close_matches(name, valid, n=1, cutoff=0.0)
    return f"did you mean {closest}? Valid are {', '.join(sorted(valid))}."
