"""Settings: CLM_ variables over a TOML file over defaults; unknown names and bad values are refused."""

import os
import re
import tomllib
import warnings
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    TypeAdapter,
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
from clm_core.domain.errors import DeprecatedSetting, InvalidSymbol, SettingsError
from clm_core.domain.execution import Execution
from clm_core.domain.faults import Fault
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import (
    COST_FIELDS,
    CostSettings,
    CostSources,
    GeneralCostSettings,
    MarketSettings,
)
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import Role
from clm_core.domain.walk_forward import WalkForwardPlan

CONFIG_VARIABLE = "CLM_CONFIG"
DEFAULT_FILE = Path("clm.toml")

MIN_SECRET_BYTES = 24
"""Minimum length of a secret for signing."""
MAX_SECRET_BYTES = 64

Key = tuple[str, ...]
"""Path of a setting: ("costs", "fee_bps") is fee_bps under [costs], or CLM_COSTS__FEE_BPS."""

RENAMED: Mapping[Key, Key] = {
    ("upkeep", "verify_minutes"): ("maintenance", "verify_minutes"),
    ("training", "apart"): ("training", "isolated"),
}
"""Former names of settings and the names to use now; the former names are accepted for one release."""


class SigningStyle(StrEnum):
    """Signature scheme of a webhook sender: always HMAC-SHA-256; signed content and headers differ."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    GITHUB = "github"
    """Signs the body alone, in X-Hub-Signature-256."""
    MLFLOW = "mlflow"
    """Signs id, time and body, in headers X-MLflow-…"""


def signing_key(secret: SecretStr, style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS) -> bytes:
    """Key bytes of a webhook secret: decoded from base64 for Standard Webhooks, else the text itself.

    Raises:
        ValueError: the secret is not base64, or too short to be safe.
    """
    if style is not SigningStyle.STANDARD_WEBHOOKS:
        key = secret.get_secret_value().encode()
        if len(key) < MIN_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_SECRET_BYTES} characters long")
        return key
    try:
        key = b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ValueError("must be base64, after whsec_") from error
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"must be {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes long")
    return key


def _usable(secret: SecretStr) -> SecretStr:
    signing_key(secret)
    return secret


def _usable_in_style(secret: SecretStr, info: ValidationInfo) -> SecretStr:
    # a style that was refused itself is missing from the data
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

    isolated: bool = True
    """True trains in a subprocess, which a time limit or cancellation ends; false in the run's process."""
    limit_seconds: float = Field(default=21_600.0, gt=0)
    """Time limit of a training in a subprocess, seconds."""


class AlertSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[Annotated[SecretStr, AfterValidator(_with_scheme)], ...] = ()
    """Receivers of alerts as apprise URLs: `slack://...`, `pagerduty://...`, `json://host/path`."""


class Subscriber(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[SecretStr, AfterValidator(_of_http)]
    """`https://host/path`; treated as a secret, because the path alone grants access to many services."""
    secret: WebhookSecret
    """Secret that signs the deliveries to the subscriber."""


class EventSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribers: tuple[Subscriber, ...] = ()
    """Receivers of every event, each by a signed HTTP request."""


class OnExpiry(StrEnum):
    ASK = "ask"
    """Alert an admin, who confirms or replaces the version; production stays unchanged meanwhile."""
    ROLL_BACK = "roll_back"
    """Roll back to the version before."""


class GuardSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    on_expiry: OnExpiry = OnExpiry.ASK
    """Action taken when a forced promotion expires."""


class MaintenanceSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    verify_minutes: float = Field(default=60.0, ge=0, le=10_080)
    """Minutes between full reads of production files by scheduled maintenance; 0 reads at every pass."""


Port = Annotated[int, Field(ge=1024, le=65535)]


class StackSettings(BaseModel):
    """Servers and worker started by `clm up`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefect_port: Port | None = None
    """Port of the Prefect server; by default 4200 or the next free port, kept from then on."""
    mlflow_port: Port | None = None
    """Port of the MLflow server; by default 5000 or the next free port."""
    api_port: Port | None = None
    """Port of the REST API; by default 8000 or the next free port."""
    concurrent_runs: int = Field(default=2, ge=1)
    """Maximum number of flow runs of the worker at a time."""


class DeploySettings(BaseModel):
    """Work pool of the deployed flows: process, docker and kubernetes differ in these settings alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_pool: str = "clm"
    """Name of the Prefect work pool; `clm deploy` creates a missing pool."""
    work_pool_type: str = "process"
    """`process`, `docker` or `kubernetes`."""
    job_variables: dict[str, Any] = {}
    """Job variables of every run: image, resources, environment."""


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric signature algorithms of JWTs (RFC 7518): only the holder of the private key can sign."""


class OIDCSettings(BaseModel):
    """OpenID Connect provider whose JWTs the REST API accepts beside its own tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class ApiSettings(BaseModel):
    """REST API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Accepted values of the Host header, without port; a request for any other host is refused."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies whose X-Forwarded-For header is trusted."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=16_777_216)
    body_seconds: float = Field(default=5.0, gt=0, le=60)
    """Maximum time for the body of a request to arrive, seconds."""
    failed_logins_per_minute: int = Field(default=10, ge=1)
    """Maximum number of wrong tokens from an address in a minute."""
    writes_per_minute: int = Field(default=60, ge=1)
    """Maximum number of writes of a token in a minute."""
    oidc: OIDCSettings | None = None
    max_event_streams: int = Field(default=50, ge=1)
    """Maximum number of simultaneous subscribers to GET /clm/events."""


class WebhookSource(BaseModel):
    """Authorised sender of webhooks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS
    secrets: tuple[Annotated[SecretStr, AfterValidator(_usable_in_style)], ...]
    """Secrets shared with the sender; several during a rotation: a signature by any of them is valid.
    24 to 64 bytes in base64; for GitHub and MLflow a text of at least 24 characters."""

    @property
    def keys(self) -> list[bytes]:
        return [signing_key(secret, self.style) for secret in self.secrets]


class PolicySource(BaseModel):
    """Source of the gate's limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    """Policy document (TOML); by default the document included in the package."""
    preset: str | None = None
    """Preset overriding the document's choice: "strict", "thresholds-only" or a preset of the document."""
    store: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """Policy store whose limits replace the five criteria, as `package.module:name`: an object with
    `get(key, default)`, or a function without arguments that returns such an object."""


class Settings(BaseSettings):
    """All settings of an installation."""

    model_config = SettingsConfigDict(
        env_prefix="CLM_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".clm")
    """Folder of all state; a relative path starts at the current folder of the program."""
    database_url: SecretStr | None = None
    """PostgreSQL, `postgresql://user:password@host:5432/database`; by default embedded, under home."""
    costs: GeneralCostSettings = GeneralCostSettings()
    markets: dict[str, MarketSettings] = {}
    """Costs and rules by symbol, as in `clm data list`; a name with a dot may be written with or without
    quotes: [markets."BTCUSDT.P"] or [markets.BTCUSDT.P]."""
    execution: Execution = Execution()
    policy: PolicySource = PolicySource()
    walk_forward: WalkForwardPlan = WalkForwardPlan()
    training: TrainingSettings = TrainingSettings()
    triggers: TriggerPolicy = TriggerPolicy()
    watch: WatchRules = WatchRules()
    lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    """Time without a heartbeat after which a job is ended as failed, seconds, 1..3600."""
    alerts: AlertSettings = AlertSettings()
    events: EventSettings = EventSettings()
    guard: GuardSettings = GuardSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    max_version_mib: int = Field(default=256, ge=1)
    """Maximum size of a version fetched from MLflow, MiB."""
    universe: tuple[Market, ...] = (Market(symbol="BTCUSD"),)
    """Markets retrained on a schedule: `[[universe]]` in the file."""
    stack: StackSettings = StackSettings()
    deploy: DeploySettings = DeploySettings()
    api: ApiSettings = ApiSettings()
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")], WebhookSource] = {}
    """Authorised webhook senders by the name in the URL: [webhooks.monitor] is POST /webhooks/monitor."""
    fault: Fault | None = None
    """Point at which the process kills itself; for crash tests only."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        absolute = home.expanduser().absolute()
        # MLflow refuses locations with "..", and a home has one spelling of the path
        return absolute.resolve() if ".." in absolute.parts else absolute

    @field_validator("markets", mode="before")
    @classmethod
    def _symbols_with_dots(cls, markets: Any) -> Any:
        return _joined(markets) if isinstance(markets, Mapping) else markets

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not re.match(r"postgres(ql)?(\+\w+)?://", url.get_secret_value()):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        return url

    @field_validator("universe")
    @classmethod
    def _each_model_once(cls, universe: tuple[Market, ...]) -> tuple[Market, ...]:
        series = Counter((normalise_symbol(market.symbol), market.timeframe) for market in universe)
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
        by_variable, by_file = env_settings(), _read(settings_file())
        _accept_old_names(by_variable, by_file)
        return (
            init_settings,
            InitSettingsSource(settings_cls, by_variable),
            InitSettingsSource(settings_cls, by_file),
        )


def _joined(markets: Mapping[str, Any]) -> dict[str, Any]:
    """Markets by canonical symbol: TOML reads [markets.BTCUSDT.P] as a table P in a table BTCUSDT.

    Raises:
        ValueError: a name cannot be a symbol, or two names are the same market.
    """
    joined = dict[str, Any]()
    for name, values in _by_whole_name(markets):
        try:
            symbol = normalise_symbol(name)
        except InvalidSymbol as error:
            raise ValueError(str(error)) from error
        if symbol in joined:
            raise ValueError(f"{name} is listed twice, as {symbol} at last: keep one table")
        joined[symbol] = values
    return joined


def _by_whole_name(markets: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, values in markets.items():
        if not isinstance(values, Mapping):
            yield name, values
            continue
        fields = MarketSettings.model_fields
        nested = {
            part: inner for part, inner in values.items() if part not in fields and isinstance(inner, Mapping)
        }
        own = {part: value for part, value in values.items() if part not in nested}
        if own or not nested:
            yield name, own
        yield from _by_whole_name({f"{name}.{part}": inner for part, inner in nested.items()})


def load_settings() -> Settings:
    """Settings from the variables, the file and the defaults.

    Raises:
        SettingsError: a variable or key is unknown, or a value is not allowed; the message names all of them.
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
    """Settings in force as JSON values, secrets masked."""
    return settings.model_dump(mode="json")


def settings_file() -> Path | None:
    """Settings file: CLM_CONFIG, else clm.toml in the current folder, if present."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named is not None:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def cost_sources(settings: Settings) -> CostSources:
    """Costs as the settings name them, with the variable or the file that names each."""
    variables = {field: _cost_variable(field, getattr(settings.costs, field)) for field in COST_FIELDS}
    return CostSources(
        general=settings.costs,
        variables={field: name for field, name in variables.items() if name is not None},
        file=CostSettings(**{field: _cost_of_file(field) for field in COST_FIELDS}),
        file_name=str(settings_file()),
        markets_variable=any(name.upper() == "CLM_MARKETS" for name in os.environ),
    )


def _cost_variable(field: str, general: float | None) -> str | None:
    """Name of the variable that set the value in force, if a variable did."""
    name = f"CLM_COSTS__{field.upper()}"
    given = next((value for key, value in os.environ.items() if key.upper() == name), None)
    try:
        return name if given is not None and general is not None and float(given) == general else None
    except ValueError:
        return None


def _cost_of_file(field: str) -> float | None:
    """Value of a field under [costs] in the settings file alone; None where the file has none."""
    costs = _read(settings_file()).get("costs", {})
    value = costs.get(field) if isinstance(costs, dict) else None
    return float(value) if isinstance(value, int | float | str) else None


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


def _accept_old_names(by_variable: dict[str, Any], by_file: dict[str, Any]) -> None:
    """Moves values given under a former name to the new name, with a warning.

    Raises:
        SettingsError: the former and the new name have different values.
    """
    for old, new in RENAMED.items():
        given = {
            label: (values, value)
            for label, values, value in (
                (_variable(old), by_variable, _take_variable(by_variable, old)),
                (f"{'.'.join(old)} in {settings_file()}", by_file, _take(by_file, old)),
            )
            if value is not None
        }
        stated = [value for values in (by_variable, by_file) if (value := _value(values, new)) is not None]
        for label, (values, value) in given.items():
            name = _variable(new) if values is by_variable else ".".join(new)
            if not all(_equal(new, value, other) for other in stated):
                raise SettingsError(
                    f"{label} is a former name of {name} and has another value: keep {name} only."
                )
            warnings.warn(
                f"{label} is now {name}: rename it, the former name is accepted in this release only.",
                DeprecatedSetting,
                stacklevel=2,
            )
            group = values.setdefault(new[0], {})
            if isinstance(group, dict):
                group[new[1]] = value


def _take_variable(by_variable: dict[str, Any], key: Key) -> str | None:
    _take(by_variable, key)
    return next((value for name, value in os.environ.items() if name.upper() == _variable(key)), None)


def _take(values: dict[str, Any], key: Key) -> Any:
    """Removes a value, and the group left empty by the removal."""
    group, name = key
    if not isinstance(values.get(group), dict):
        return None
    value = values[group].pop(name, None)
    if not values[group]:
        del values[group]
    return value


def _value(values: Mapping[str, Any], key: Key) -> Any:
    group, name = key
    return values[group].get(name) if isinstance(values.get(group), dict) else None


def _equal(key: Key, one: Any, other: Any) -> bool:
    """Equality of two values of a setting as parsed: the variable "5" equals 5.0 in the file."""
    parse = TypeAdapter[Any](dict(_fields(Settings))[key]).validate_python
    try:
        return bool(parse(one) == parse(other))
    except ValidationError:
        return bool(one == other)


def _variable(key: Key) -> str:
    return "CLM_" + "__".join(key).upper()


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    valid = [CONFIG_VARIABLE, *(_variable(key) for key, _ in _fields(Settings))]
    for name in sorted(environment):
        if name.upper().startswith("CLM_") and name.upper() not in {*valid, *map(_variable, RENAMED)}:
            yield f"{name} is not a setting: {_hint(name.upper(), valid, _variable)}"


def _problem(details: ErrorDetails) -> str:
    key = tuple(map(str, details["loc"]))
    setting = next((known for known, _ in _fields(Settings) if key[: len(known)] == known), key)
    if details["type"] == "extra_forbidden":
        valid = [".".join(key) for key, _ in _fields(Settings)]
        return (
            f"{'.'.join(key)} in {settings_file()} is not a setting: {_hint('.'.join(key), valid, '.'.join)}"
        )
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
    names = [key, *(old for old, new in RENAMED.items() if new == key)]
    given = (variables[_variable(name)] for name in names if _variable(name) in variables)
    return next(given, str(settings_file()))


def _hint(name: str, valid: Sequence[str], written: Callable[[Key], str]) -> str:
    renamed = {written(old): written(new) for old, new in RENAMED.items()}
    [match] = get_close_matches(name, [*valid, *renamed], n=1, cutoff=0.0)
    closest = renamed.get(match, match)
    return f"did you mean {closest}? Valid are {', '.join(sorted(valid))}."
