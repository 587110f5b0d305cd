"""Numbers of the advisory locks."""

import re
from enum import UNIQUE, verify
from pathlib import Path

import clm_core
from clm_core.ledger import migrations
from clm_core.platform.locks import AdvisoryLock


def test_each_advisory_lock_has_a_number_of_its_own() -> None:
    assert verify(UNIQUE)(AdvisoryLock) is AdvisoryLock


def test_lock_numbers_fit_the_first_of_two_keys_of_postgresql() -> None:
    assert all(0 < lock < 2**31 for lock in AdvisoryLock)


def test_the_ledgers_triggers_take_the_lock_of_the_audit() -> None:
    revision = migrations.FOLDER / "versions" / "v0006_alerts_and_receivers.py"
    assert f"x'{AdvisoryLock.AUDIT:08X}'" in revision.read_text()


def test_no_module_has_a_lock_number_of_its_own() -> None:
    package = Path(clm_core.__file__).parent
    literal = re.compile("0x434C4D", re.IGNORECASE)
    files = [
        file.relative_to(package).as_posix()
        for file in sorted(package.rglob("*.py"))
        if "migrations/versions" not in file.as_posix() and literal.search(file.read_text())
    ]
    assert files == ["platform/locks.py"]
