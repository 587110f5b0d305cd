"""Settings of a command, compared with those of the running stack: a change is refused, a look is warned."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from clm_core.settings import Settings


def settings_for_change(*, delivers: bool = False) -> "Settings":
    """Settings of a command that decides or changes something.

    Args:
        delivers: True for a command that sends events and alerts.

    Raises:
        SettingsError: a setting is not allowed, or differs from the running stack's.
    """
    from clm_core.operations.settings_check import DELIVERED, SERVED, require_settings_of_stack
    from clm_core.settings import load_settings

    settings = load_settings()
    require_settings_of_stack(settings, unused=SERVED if delivers else (*SERVED, *DELIVERED))
    return settings


def settings_for_promotion() -> "Settings":
    """Settings of a command that promotes: the policy is that of the home, not of the shell.

    Raises:
        SettingsError: as for `settings_for_change`, or a variable names another policy than the settings file
            of the home while no stack runs.
    """
    from clm_core.operations.settings_check import require_policy_of_home

    settings = settings_for_change()
    require_policy_of_home(settings)
    return settings


def settings_for_repair() -> "Settings":
    """Settings of a command that repairs what serves, such as a rollback, which must not wait for a restart.

    Another database than the running stack's is refused; other differences are printed.

    Raises:
        SettingsError: a setting is not allowed, or the database is another one.
    """
    from clm_core.operations.settings_check import STORES, require_settings_of_stack

    settings = settings_for_look()
    require_settings_of_stack(settings, reads=STORES)
    return settings


def settings_for_look() -> "Settings":
    """Settings of a command that only shows something; a difference to the running stack's is printed.

    Raises:
        SettingsError: a setting is not allowed.
    """
    from clm_core.operations.settings_check import difference_to_stack
    from clm_core.settings import load_settings

    settings = load_settings()
    if sentence := difference_to_stack(settings):
        typer.echo(f"Warning: {sentence}", err=True)
    return settings


def require_home(settings: "Settings") -> None:
    """Refuse a home without a database, which only commands that train, serve or import make.

    Raises:
        NoHome: the home has no database.
    """
    from clm_core.operations import settings_check

    settings_check.require_home(settings)
