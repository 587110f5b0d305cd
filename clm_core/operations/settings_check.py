"""Checks of settings before a start: usable on this machine, and equal to those of the running stack."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from multiprocessing import get_context

from pydantic import SecretStr

from clm_core.decisions.gate_policy import load_document, load_store
from clm_core.domain.errors import CLMError, NoHome, SecretUnavailable, SettingsError
from clm_core.domain.kinds import Kind
from clm_core.domain.secret_references import references_of
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.training_settings import TrainingPlace
from clm_core.domain.vocabulary import ModelType
from clm_core.ledger.timestamps import authority_of
from clm_core.platform import notifications, tracing
from clm_core.platform.bucket import Bucket
from clm_core.platform.settings_file import HOME_VARIABLE
from clm_core.platform.stack_settings import StackSettingsRecord
from clm_core.settings import (
    Settings,
    policy_variables,
    setting_texts,
    settings_file,
    variables_given,
)

DEPLOYED = ("universe", "deploy.job_variables")
"""Settings that `clm deploy` brings into a running stack: names, or beginnings of names."""
SERVED = ("stack.", "api.", "webhooks")
"""Settings that only the servers of the stack read: a command may have others."""
DELIVERED = ("alerts.", "events.", "audit.")
"""Settings that only deliveries read."""
STORES = ("database_url", "storage.url", "storage.endpoint")
"""Settings that name the versions, the ledger and the bars."""


def require_usable(settings: Settings) -> None:
    """Try all that the settings name and a started process would need.

    Raises:
        SettingsError: the policy, the policy store, a receiver of alerts, a file with own features, a kind of
            model, a secret in the server of secrets, the bucket, the certificates of the time-stamp authority
            or the cluster for trainings cannot be used; the message names all.
    """
    if problems := _problems(settings):
        raise SettingsError(problems)


def require_usable_in_fork(settings: Settings) -> None:
    """`require_usable` in a process of its own: a check imports 90 MB of libraries, which a supervisor would
    keep for ever. Belongs before the start of threads.

    Raises:
        SettingsError: see `require_usable`.
        CLMError: the check itself has failed.
    """
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(_problems(settings)))
    process.start()
    sending.close()
    try:
        problems = receiving.recv()
    except EOFError:
        raise CLMError("The check of the settings has ended without an answer: try `clm config`.") from None
    finally:
        process.join()
    if problems:
        raise SettingsError(problems)


def _problems(settings: Settings) -> str:
    """Sentences about all that cannot be used, a line each; empty without a problem."""
    errors = [error for check in _checks(settings) if (error := _error_of(check)) is not None]
    return "\n".join(str(error) for error in errors)


def differences(settings: Settings) -> list[str]:
    """Names of the settings that differ from those of the running stack; empty while no stack runs."""
    record = StackSettingsRecord.read(settings.home)
    return [] if record is None else record.differing(settings.home, setting_texts(settings))


def difference_to_stack(settings: Settings) -> str | None:
    """Sentence about the settings that differ from the running stack's, without their values."""
    record = StackSettingsRecord.read(settings.home)
    names = differences(settings)
    return None if record is None or not names else _difference(settings, record, names)


def require_settings_of_stack(
    settings: Settings,
    *,
    reads: tuple[str, ...] = ("",),
    unused: tuple[str, ...] = SERVED,
    deploys: bool = False,
) -> None:
    """Refuse settings that differ from those of the running stack.

    Args:
        reads: names of settings, or beginnings of names, that the command reads; by default all.
        unused: names of settings, or beginnings of names, that the command does not read.
        deploys: True for the command that brings an edited universe into the stack.

    Raises:
        SettingsError: a setting differs; the message names settings, files and variables.
    """
    record = StackSettingsRecord.read(settings.home)
    if record is None:
        return
    names = [name for name in differences(settings) if name.startswith(reads) and not name.startswith(unused)]
    if deploys and record.file == _file_name(settings) and not _are_set_by_variables(names):
        names = [name for name in names if not name.startswith(DEPLOYED)]
    if names:
        raise SettingsError(f"{_difference(settings, record, names)}\n{_advice(settings, record)}")


def require_policy_of_home(settings: Settings) -> None:
    """Refuse a gate policy that comes from a variable of the command alone.

    A running stack, whose settings are compared by `require_settings_of_stack`, may take its policy from
    variables.

    Raises:
        SettingsError: a variable gives the policy, and the home's settings file gives another.
    """
    if StackSettingsRecord.read(settings.home) is not None:
        return
    names = policy_variables(settings)
    if names:
        raise SettingsError(
            f"{', '.join(names)} names another gate policy than the settings of {settings.home}: a promotion "
            "is judged by the policy of the home. Unset the variable, or write the policy into "
            f"{settings.home / 'clm.toml'} under [policy]."
        )


def require_home(settings: Settings) -> None:
    """Refuse a home without a database, which only what trains, serves or imports makes.

    Raises:
        NoHome: the home has no database.
    """
    home = settings.home
    if not has_home(settings):
        known = "has no models yet" if home.exists() else "does not exist"
        raise NoHome(
            f"The home {home} {known}: `clm demo` or `clm retrain` makes one, in Python CLM.open(home, "
            "create=True). CLM_HOME names another home."
        )


def has_home(settings: Settings) -> bool:
    """True if the home has a database, or uses one elsewhere."""
    return settings.database_url is not None or (settings.home / "postgres").exists()


def record_settings(settings: Settings, at: datetime) -> None:
    """Record the settings of the stack that starts."""
    StackSettingsRecord.of(
        settings.home,
        setting_texts(settings),
        settings_file(settings.home),
        variables_given(),
        settings.deploy.work_pool,
        at,
    ).write(settings.home)


def record_deployed(settings: Settings) -> None:
    """Record that the settings of the schedules were brought into the running stack, if a stack runs."""
    record = StackSettingsRecord.read(settings.home)
    if record is None:
        return
    fresh = StackSettingsRecord.of(
        settings.home,
        setting_texts(settings),
        settings_file(settings.home),
        record.variables,
        settings.deploy.work_pool,
        record.at,
    )
    deployed = {name: digest for name, digest in fresh.digests.items() if name.startswith(DEPLOYED)}
    record.model_copy(update={"digests": record.digests | deployed}).write(settings.home)


def _checks(settings: Settings) -> Iterator[Callable[[], object]]:
    from clm_core.market import own_features
    from clm_core.market.exchange import require_known
    from clm_core.models import catalog

    policy = settings.policy
    yield partial(load_document, policy.file, policy.preset)
    if policy.store is not None:
        yield partial(load_store, policy.store)
    for url in settings.alerts.urls:
        yield partial(_receiver, url)
    for exchange in settings.exchanges:
        yield partial(require_known, exchange)
    for _, reference in references_of(settings):
        yield reference.get_secret_value
    authority = authority_of(settings.audit)
    if authority is not None:
        yield authority.trusted
    with own_features.use(settings.features.files):
        yield own_features.table
    yield partial(tracing.require_exporter, settings.tracing)
    if settings.storage.url is not None:
        yield partial(_bucket, settings.storage)
    if settings.training.where is TrainingPlace.KUBERNETES:
        from clm_core.retraining.training_pods import require_pods

        yield partial(require_pods, settings.home, settings.training)
    for market in settings.universe:
        plugins = (Kind(ModelType.OTHER, name) for name in market.plugins)
        for kind in (*map(Kind, market.model_types or ()), *plugins):
            yield partial(catalog.find_kind, *kind)


def _bucket(storage: StorageSettings) -> None:
    bucket = Bucket(storage)
    # an unreadable reference is one problem, of the check of the references
    with contextlib.suppress(SecretUnavailable):
        bucket.require_reachable()
        bucket.require_writable()


def _receiver(url: SecretStr) -> None:
    # an unreadable reference is one problem, of the check of the references
    with contextlib.suppress(SecretUnavailable):
        notifications.receiver(url.get_secret_value())


def _error_of(check: Callable[[], object]) -> CLMError | None:
    try:
        check()
    except CLMError as error:
        return error
    return None


def _difference(settings: Settings, record: StackSettingsRecord, names: list[str]) -> str:
    return (
        f"The running stack of {settings.home} uses other settings: {', '.join(names)}. "
        f"This command: {_sources(_file_name(settings), tuple(variables_given()))}. "
        f"The stack, as of {record.at:%Y-%m-%d %H:%M} UTC: {_sources(record.file, record.variables)}."
    )


def _are_set_by_variables(names: list[str]) -> bool:
    given = [name.upper() for name in variables_given()]
    return any(f"CLM_{name.replace('.', '__').upper()}" in given for name in names)


def _file_name(settings: Settings) -> str | None:
    file = settings_file(settings.home)
    return None if file is None else str(file)


def _sources(file: str | None, variables: tuple[str, ...]) -> str:
    others = [name for name in variables if name.upper() != HOME_VARIABLE]
    return " and ".join([file or "no settings file", *([", ".join(others)] if others else [])])


def _advice(settings: Settings, record: StackSettingsRecord) -> str:
    own = set(variables_given())
    others = set(record.variables)
    variables = [
        *(f"unset {name}" for name in sorted(own - others - {HOME_VARIABLE})),
        *(f"set {name} as for the stack" for name in sorted(others - own - {HOME_VARIABLE})),
    ]
    if variables:
        return (
            f"Take the settings of the stack ({', '.join(variables)}), or `clm down` and `clm up` with these."
        )
    if record.file == _file_name(settings):
        return "`clm down` and `clm up` take an edited file up; `clm deploy` takes up a changed universe."
    return "Take the settings file of the stack, or `clm down` and `clm up` with these settings."
