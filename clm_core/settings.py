"""Settings: CLM_ variables over the home's file over defaults; unknown names and bad values are refused."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import (
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.audit_settings import AuditSettings
from clm_core.domain.database_settings import BarDatabase
from clm_core.domain.errors import SettingsError
from clm_core.domain.exchange_settings import ExchangeKeys
from clm_core.domain.execution import ExecutionSettings
from clm_core.domain.faults import Fault
from clm_core.domain.operation_settings import (
    AlertSettings,
    DeploySettings,
    FeatureSettings,
    GuardSettings,
    LogSettings,
    MaintenanceSettings,
    PolicySource,
    StackSettings,
)
from clm_core.domain.pools import PoolSettings, by_pool_name
from clm_core.domain.secret_references import Referable, SecretReference, references_of, secrets_of
from clm_core.domain.setting_keys import (
    Key,
    dotted,
    fields,
    hint,
    is_secret,
    value_at,
    variable,
    variable_given,
)
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.terms import (
    COST_FIELDS,
    CostSettings,
    CostSources,
    GeneralCostSettings,
    MarketSettings,
    by_symbol,
)
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.domain.training_settings import TrainingSettings
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.universe import Market
from clm_core.domain.vault_settings import VaultSettings
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.domain.watch_rules import WatchRules
from clm_core.domain.webhook_settings import EventSettings, WebhookSource
from clm_core.platform.renamed_settings import RENAMED, accept_old_names
from clm_core.platform.secrets import Vault
from clm_core.platform.settings_file import (
    CONFIG_VARIABLE,
    DEFAULT_HOME,
    HOME_VARIABLE,
    SettingsPlace,
    absolute_home,
    place,
    with_absolute_paths,
)


def _postgresql(url: SecretStr, _: Mapping[str, Any]) -> None:
    if not re.match(r"postgres(ql)?(\+\w+)?://", url.get_secret_value()):
        raise ValueError("must look like postgresql://user:password@host:5432/database")


class Settings(BaseSettings):
    """All settings of an installation."""

    model_config = SettingsConfigDict(
        env_prefix="CLM_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = DEFAULT_HOME
    """Folder of all state, named by CLM_HOME; a relative path starts at the current folder."""
    database_url: Annotated[SecretStr, Referable(_postgresql)] | None = None
    """PostgreSQL, `postgresql://user:password@host:5432/database`; by default embedded, under home."""
    storage: StorageSettings = StorageSettings()
    costs: GeneralCostSettings = GeneralCostSettings()
    markets: dict[str, MarketSettings] = {}
    """Costs and rules by symbol, as in `clm data list`; a name with a dot may be written with or without
    quotes: [markets."BTCUSDT.P"] or [markets.BTCUSDT.P]."""
    execution: ExecutionSettings = ExecutionSettings()
    policy: PolicySource = PolicySource()
    walk_forward: WalkForwardPlan = WalkForwardPlan()
    training: TrainingSettings = TrainingSettings()
    features: FeatureSettings = FeatureSettings()
    triggers: TriggerPolicy = TriggerPolicy()
    watch: WatchRules = WatchRules()
    lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    """Time without a heartbeat after which a job is suspect, seconds, 1..3600; the job is ended as failed if
    half a minute later no heartbeat has come either."""
    alerts: AlertSettings = AlertSettings()
    events: EventSettings = EventSettings()
    guard: GuardSettings = GuardSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    audit: AuditSettings = AuditSettings()
    logs: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    max_version_mib: int = Field(default=256, ge=1)
    """Maximum size of a version fetched from MLflow, MiB."""
    universe: tuple[Market, ...] = ()
    """Markets retrained on a schedule: `[[universe]]` in the file. Without the setting, the models trained in
    the home, on bars other than those of the demo."""
    databases: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")], BarDatabase] = {}
    """Databases with bars, by name: [databases.warehouse]."""
    pools: dict[str, PoolSettings] = {}
    """Pools by name: several symbols with a shared model. The name is no symbol of a market."""
    stack: StackSettings = StackSettings()
    deploy: DeploySettings = DeploySettings()
    api: ApiSettings = ApiSettings()
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")], WebhookSource] = {}
    """Authorised webhook senders by the name in the URL: [webhooks.monitor] is POST /webhooks/monitor."""
    exchanges: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")], ExchangeKeys] = {}
    """API keys by the name of the exchange in ccxt, for what an exchange does not give to everybody."""
    vault: VaultSettings = VaultSettings()
    fault: Fault | None = None
    """Point at which the process kills itself; for crash tests only."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return absolute_home(home)

    @field_validator("markets", mode="before")
    @classmethod
    def _symbols_with_dots(cls, markets: Any) -> Any:
        return by_symbol(markets) if isinstance(markets, Mapping) else markets

    @field_validator("pools", mode="before")
    @classmethod
    def _canonical_pools(cls, pools: Any) -> Any:
        return by_pool_name(pools) if isinstance(pools, Mapping) else pools

    @property
    def lists_universe(self) -> bool:
        """True if the universe is set, also to no market."""
        return "universe" in self.model_fields_set

    def fetched_market(self, symbol: str, timeframe: str) -> Market | None:
        """Market of the universe whose bars are fetched from an exchange or a database; None without one."""
        named = (normalise_symbol(symbol), timeframe)
        return next(
            (
                each
                for each in self.universe
                if each.is_fetched and (normalise_symbol(each.symbol), each.timeframe) == named
            ),
            None,
        )

    @field_validator("universe")
    @classmethod
    def _each_model_once(cls, universe: tuple[Market, ...]) -> tuple[Market, ...]:
        series = Counter((normalise_symbol(market.symbol), market.timeframe) for market in universe)
        if twice := [" ".join(key) for key, count in series.items() if count > 1]:
            raise ValueError(f"{', '.join(twice)} is listed twice: list each symbol and timeframe once")
        return universe

    @model_validator(mode="after")
    def _known_databases(self) -> Self:
        for market in self.universe:
            if market.database is not None and market.database not in self.databases:
                raise ValueError(
                    f"{market.symbol} of the universe names the database {market.database}: add "
                    f"[databases.{market.database}]"
                )
        return self

    @model_validator(mode="after")
    def _with_server_of_secrets(self) -> Self:
        vault = Vault(self.vault)
        for name, reference in references_of(self):
            reference.bind(vault, name)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        chosen = init_settings().get("home")
        location = settings_place(None if chosen is None else Path(chosen))
        by_variable = with_absolute_paths(env_settings(), PATHS, Path.cwd())
        by_file = {} if location.file is None else dict(location.file.values)
        accept_old_names(by_variable, by_file, location.file_name, _equal)
        return (
            init_settings,
            InitSettingsSource(settings_cls, by_variable),
            InitSettingsSource(settings_cls, by_file),
        )


PATHS = tuple(key for key, annotation in fields(Settings) if Path in (annotation, *get_args(annotation)))
"""Keys of the settings that are paths."""


def load_settings(home: Path | None = None) -> Settings:
    """Settings from the variables, the home's file and the defaults.

    Args:
        home: the home, where the caller has chosen one; by default that of CLM_HOME.

    Raises:
        SettingsError: a variable or key is unknown, or a value is not allowed; the message names all of them.
    """
    problems = list(_unknown_variables(os.environ))
    if not problems:
        try:
            return Settings() if home is None else Settings(home=home)
        except ValidationError as error:
            problems = [_problem(details) for details in error.errors()]
        except UnreadableVariable as error:
            problems = [f"{error}: lists and tables are written as JSON in a variable."]
    # Raised outside the handler: the validation error would carry a secret into the traceback.
    raise SettingsError("\n".join(problems))


def effective(settings: Settings) -> dict[str, Any]:
    """Settings in force as JSON values, secrets masked."""
    return settings.model_dump(mode="json")


def settings_place(home: Path | None = None) -> SettingsPlace:
    """Home and settings file in force.

    Args:
        home: the home, where the caller has chosen one.

    Raises:
        SettingsError: a file cannot be read, or two files differ.
    """
    return place(PATHS, home)


def settings_file(home: Path | None = None) -> Path | None:
    """Path of the settings file in force, absolute; None without one."""
    file = settings_place(home).file
    return None if file is None else file.path


def setting_texts(settings: Settings) -> dict[str, str]:
    """Each setting as JSON text by its dotted name, secrets included: never print these.

    Left out are the home and the point of a crash test: neither belongs to a home's settings.
    """
    revealed = settings.model_dump(mode="python", exclude={"home", "fault"})
    keys = (key for key, _ in fields(Settings) if key[0] in revealed)
    return {dotted(key): json.dumps(_plain(value_at(revealed, key)), sort_keys=True) for key in keys}


def variables_given() -> list[str]:
    """Names of the variables that set a value, former names and CLM_HOME included."""
    keys = [*(key for key, _ in fields(Settings)), *RENAMED]
    names = [variable_given(os.environ, key) for key in keys]
    return [name for name in names if name is not None]


def child_variables(settings: Settings) -> dict[str, str]:
    """Variables that give a child process in any folder the settings of this process."""
    file = settings_place(settings.home).file
    paths = {
        name: _absolute_text(os.environ[name], dict(fields(Settings))[key])
        for key in PATHS
        if (name := variable_given(os.environ, key)) is not None
    }
    named = {CONFIG_VARIABLE: str(file.path)} if file is not None else {}
    return paths | named | {HOME_VARIABLE: str(settings.home)}


def _absolute_text(value: str, annotation: Any) -> str:
    """Value of a variable, a path or a JSON list of paths, for a process in any folder."""
    if get_origin(annotation) is not tuple:
        return str(Path(value).expanduser().absolute())
    return json.dumps([str(Path(each).expanduser().absolute()) for each in json.loads(value)])


def names_secrets(settings: Settings) -> bool:
    """True if the settings file holds a secret: a URL of a receiver, a password, a webhook secret."""
    file = settings_place(settings.home).file
    held = {name for name, secret in secrets_of(settings) if not isinstance(secret, SecretReference)}
    filed = [dotted(key) for key, _ in fields(Settings) if file and value_at(file.values, key) is not None]
    return any(name == key or name.startswith(f"{key}.") for name in held for key in filed)


def cost_sources(settings: Settings) -> CostSources:
    """Costs as the settings name them, with the variable or the file that names each."""
    variables = {field: _cost_variable(field, getattr(settings.costs, field)) for field in COST_FIELDS}
    location = settings_place(settings.home)
    return CostSources(
        general=settings.costs,
        variables={field: name for field, name in variables.items() if name is not None},
        file=CostSettings(**{field: _cost_of_file(location, field) for field in COST_FIELDS}),
        file_name=location.file_name,
        markets_variable=any(name.upper() == "CLM_MARKETS" for name in os.environ),
    )


def home_cost_sources(settings: Settings) -> CostSources:
    """Costs of the home: as `cost_sources`, with the values of the settings file in place of variables."""
    sources = cost_sources(settings)
    filed = {field: getattr(sources.file, field) for field in sources.variables}
    if variable_given(os.environ, ("costs", "defaults")) is not None:
        file = settings_place(settings.home).file
        filed["defaults"] = None if file is None else value_at(file.values, ("costs", "defaults"))
    return replace(
        sources, general=settings.costs.model_copy(update=filed), variables={}, markets_variable=False
    )


def home_markets(settings: Settings) -> Mapping[str, MarketSettings]:
    """Costs and rules by symbol, without those of the variable CLM_MARKETS."""
    if variable_given(os.environ, ("markets",)) is None:
        return settings.markets
    file = settings_place(settings.home).file
    filed = {} if file is None else file.values.get("markets", {})
    return TypeAdapter(dict[str, MarketSettings]).validate_python(by_symbol(filed))


def policy_variables(settings: Settings) -> list[str]:
    """Names of the variables that give the policy another source than the home's settings file."""
    file = settings_place(settings.home).file
    keys: list[Key] = [("policy", field) for field in PolicySource.model_fields]
    filed = {key: None if file is None else value_at(file.values, key) for key in keys}
    given = ((key, variable_given(os.environ, key)) for key in keys)
    return [
        name
        for key, name in given
        if name is not None and not _equal(key, filed[key], getattr(settings.policy, key[-1]))
    ]


def _cost_variable(field: str, general: float | None) -> str | None:
    """Name of the variable that set the value in force, if a variable did."""
    name = f"CLM_COSTS__{field.upper()}"
    given = next((value for key, value in os.environ.items() if key.upper() == name), None)
    try:
        return name if given is not None and general is not None and float(given) == general else None
    except ValueError:
        return None


def _cost_of_file(location: SettingsPlace, field: str) -> float | None:
    """Value of a field under [costs] in the settings file alone; None where the file has none."""
    value = None if location.file is None else value_at(location.file.values, ("costs", field))
    return float(value) if isinstance(value, int | float | str) else None


def _plain(value: Any) -> Any:
    """A value for JSON, with the secrets of the settings and the references to others."""
    match value:
        case SecretReference():
            return value.reference
        case SecretStr():
            return value.get_secret_value()
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Path():
            return str(value)
    return value


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
        return f"{dotted(key)} in {settings_place().file_name} is not a setting: {advice}"
    value = "(hidden)" if is_secret(types.get(setting)) else repr(details["input"])
    reason = details["msg"].removeprefix("Value error, ")
    return f"{dotted(key)} = {value}, set by {_origin(setting)}, is not allowed: {reason}."


def _origin(key: Key) -> str:
    names = [key, *(old for old, new in RENAMED.items() if new == key)]
    given = (
        variable_name for name in names if (variable_name := variable_given(os.environ, name)) is not None
    )
    return next(given, settings_place().file_name)
