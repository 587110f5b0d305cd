"""Settings: CLM_ variables over a TOML file over defaults; unknown names and bad values are refused."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
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
from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.errors import SettingsError
from clm_core.domain.execution import Execution
from clm_core.domain.faults import Fault
from clm_core.domain.operation_settings import (
    AlertSettings,
    DeploySettings,
    GuardSettings,
    MaintenanceSettings,
    PolicySource,
    StackSettings,
    TrainingSettings,
)
from clm_core.domain.setting_keys import Key, dotted, fields, hint, is_secret, variable, variable_given
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import (
    COST_FIELDS,
    CostSettings,
    CostSources,
    GeneralCostSettings,
    MarketSettings,
    by_symbol,
)
from clm_core.domain.universe import Market
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.domain.webhook_settings import EventSettings, WebhookSource
from clm_core.platform.renamed_settings import RENAMED, accept_old_names

CONFIG_VARIABLE = "CLM_CONFIG"
DEFAULT_FILE = Path("clm.toml")


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
    """Time without a heartbeat after which a job is suspect, seconds, 1..3600; the job is ended as failed if
    half a minute later no heartbeat has come either."""
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
        return by_symbol(markets) if isinstance(markets, Mapping) else markets

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
        accept_old_names(by_variable, by_file, settings_file(), _equal)
        return (
            init_settings,
            InitSettingsSource(settings_cls, by_variable),
            InitSettingsSource(settings_cls, by_file),
        )


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


def names_secrets() -> bool:
    """True if the settings file holds a secret: a URL of a receiver, a password, a webhook secret."""
    by_file = _read(settings_file())
    secrets = [key for key, annotation in fields(Settings) if is_secret(annotation)]
    return any(_within(by_file, key) for key in secrets)


def _within(values: Mapping[str, Any], key: Key) -> bool:
    inner: Any = values
    for name in key:
        if not isinstance(inner, Mapping) or name not in inner:
            return False
        inner = inner[name]
    return True


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


def _equal(key: Key, one: Any, other: Any) -> bool:
    """Equality of two values of a setting as parsed: the variable "5" equals 5.0 in the file."""
    parse = TypeAdapter[Any](dict(fields(Settings))[key]).validate_python
    try:
        return bool(parse(one) == parse(other))
    except ValidationError:
        return bool(one == other)


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    valid = [CONFIG_VARIABLE, *(variable(key) for key, _ in fields(Settings))]
    renamed = {variable(old): variable(new) for old, new in RENAMED.items()}
    for name in sorted(environment):
        if name.upper().startswith("CLM_") and name.upper() not in {*valid, *renamed}:
            yield f"{name} is not a setting: {hint(name.upper(), valid, renamed)}"


def _problem(details: ErrorDetails) -> str:
    key = tuple(map(str, details["loc"]))
    types = dict(fields(Settings))
    setting = next((known for known in types if key[: len(known)] == known), key)
    if details["type"] == "extra_forbidden":
        renamed = {dotted(old): dotted(new) for old, new in RENAMED.items()}
        advice = hint(dotted(key), list(map(dotted, types)), renamed)
        return f"{dotted(key)} in {settings_file()} is not a setting: {advice}"
    value = "(hidden)" if is_secret(types.get(setting)) else repr(details["input"])
    reason = details["msg"].removeprefix("Value error, ")
    return f"{dotted(key)} = {value}, set by {_origin(setting)}, is not allowed: {reason}."


def _origin(key: Key) -> str:
    names = [key, *(old for old, new in RENAMED.items() if new == key)]
    given = (found for name in names if (found := variable_given(os.environ, name)) is not None)
    return next(given, str(settings_file()))
