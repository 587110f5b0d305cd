"""Copies of the anchors outside the home: a folder on another volume, or a git repository.

A copy holds the files of the folder of anchors: `<day>.jsonl`, and `timestamps/` (see `timestamps`). Lines
and files are only added, so that a folder may be append-only and a branch protected from forced pushes.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from clm_core.domain.errors import AuditBroken, DeliveryFailed
from clm_core.domain.secret_references import reference_text
from clm_core.ledger.audit_log import read_anchors, write_line
from clm_core.ledger.hash_chain import Anchor
from clm_core.ledger.timestamps import TOKENS

MAX_SHIPPED = 200
"""Maximum number of anchors shipped at a time; the next pass ships the rest."""
GIT_SECONDS = 60.0
"""Time limit of a git command."""
_SHIPPED = "refs/clm/shipped"
"""Reference of a clone to the commit that the repository accepted last."""
_FETCHED = "refs/remotes/copy/anchors"


class AnchorCopy(Protocol):
    """A place with a copy of the anchors."""

    @property
    def name(self) -> str:
        """Name for people, without secrets."""

    def ship(self, source: Path) -> int:
        """Add what the copy lacks of the folder of anchors; returns the number of new anchors.

        Raises:
            DeliveryFailed: the copy cannot be reached or written.
            AuditBroken: the copy was changed.
        """

    def folder(self) -> Path:
        """Folder with the content of the copy, up to date.

        Raises:
            DeliveryFailed: the copy cannot be reached.
            AuditBroken: the copy was changed.
        """


@dataclass(frozen=True)
class FolderCopy:
    path: Path

    @property
    def name(self) -> str:
        return f"folder {self.path}"

    def folder(self) -> Path:
        # without this check an unmounted volume would look like an empty copy
        if not self.path.is_dir():
            raise DeliveryFailed(f"{self.path} is no folder: mount the volume, or make the folder")
        return self.path

    def ship(self, source: Path) -> int:
        folder = self.folder()
        missing = missing_anchors(source, folder)
        try:
            for file, anchor in missing:
                write_line(folder, file, anchor.model_dump_json())
            _add_tokens(source, folder)
        except OSError as error:
            raise DeliveryFailed(f"{folder} cannot be written: {error.strerror}") from error
        return len(missing)


@dataclass(frozen=True)
class GitCopy:
    """A branch of a repository, with a commit for each anchor."""

    repository: SecretStr
    """Path or URL, which may carry a password."""
    branch: str
    clone: Path
    """Folder of the home for a clone, which is reset to the repository before every use."""

    @property
    def name(self) -> str:
        if reference := reference_text(self.repository):
            return f"git {reference}"
        url = self.repository.get_secret_value()
        return f"git {url.rpartition('@')[2]} {hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def folder(self) -> Path:
        self._update()
        return self.clone

    def ship(self, source: Path) -> int:
        self._update()
        missing = missing_anchors(source, self.clone)
        for file, anchor in missing:
            write_line(self.clone, file, anchor.model_dump_json())
            self._commit(f"Anchor entry {anchor.seq}\n\n{anchor.hash}")
        if _add_tokens(source, self.clone):
            self._commit("Add timestamps")
        if self._has_commits():
            self._git("push", self.repository.get_secret_value(), f"HEAD:refs/heads/{self.branch}")
            self._git("update-ref", _SHIPPED, "HEAD")
        return len(missing)

    def _update(self) -> None:
        """Fetch the branch into the clone; commits that the repository never accepted are dropped."""
        if not (self.clone / ".git").is_dir():
            self.clone.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--initial-branch", self.branch)
        reference = f"refs/heads/{self.branch}"
        if self._git("ls-remote", self.repository.get_secret_value(), reference):
            url = self.repository.get_secret_value()
            self._git("fetch", "--quiet", "--no-tags", url, f"+{reference}:{_FETCHED}")
            self._require_descendant()
            self._git("reset", "--quiet", "--hard", _FETCHED)
        elif self._shipped():
            raise AuditBroken(
                f"The branch {self.branch} of {self.name} is gone, though anchors were shipped there: put "
                "the branch back from another clone, and find out who removed it."
            )
        elif self._has_commits():
            shutil.rmtree(self.clone)
            self._update()

    def _require_descendant(self) -> None:
        shipped = self._shipped()
        if shipped and not self._succeeds("merge-base", "--is-ancestor", shipped, _FETCHED):
            raise AuditBroken(
                f"The branch {self.branch} of {self.name} lacks the commit {shipped} that was shipped there: "
                "its history was rewritten. Compare with another clone, and refuse forced pushes."
            )

    def _commit(self, message: str) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)

    def _shipped(self) -> str:
        return self._git("for-each-ref", "--format=%(objectname)", _SHIPPED).strip()

    def _has_commits(self) -> bool:
        return self._succeeds("rev-parse", "--quiet", "--verify", "HEAD")

    def _succeeds(self, *arguments: str) -> bool:
        return self._run(arguments).returncode == 0

    def _git(self, *arguments: str) -> str:
        """Output of a git command.

        Raises:
            DeliveryFailed: git is not installed, or the command failed.
        """
        done = self._run(arguments)
        if done.returncode:
            said = done.stderr.replace(self.repository.get_secret_value(), self.name).strip()
            raise DeliveryFailed(f"git {arguments[0]} failed: {said}")
        return done.stdout

    def _run(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        options = ("user.name=clm", "user.email=clm@localhost", "commit.gpgsign=false")
        configured = [
            part for option in (*options, f"core.hooksPath={os.devnull}") for part in ("-c", option)
        ]
        try:
            return subprocess.run(
                ["git", "-C", str(self.clone), *configured, *arguments],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=GIT_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeliveryFailed("git is not installed: install git") from error
        except subprocess.TimeoutExpired as error:
            raise DeliveryFailed(f"git {arguments[0]} did not end within {GIT_SECONDS:.0f} s") from error


def missing_anchors(source: Path, copy: Path) -> list[tuple[str, Anchor]]:
    """Anchors that a copy lacks, with the name of their file, oldest first; at most `MAX_SHIPPED`."""
    present = {(anchor.seq, anchor.hash) for anchor in read_anchors(copy)}
    named = [
        (file.name, anchor)
        for file in sorted(source.glob("*.jsonl"))
        for anchor in read_anchors(source, file.name)
        if (anchor.seq, anchor.hash) not in present
    ]
    return sorted(named, key=lambda pair: pair[1].seq)[:MAX_SHIPPED]


def _environment() -> dict[str, str]:
    """Environment in which git asks nothing and follows no repository of the caller."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return own | {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C"}


def _add_tokens(source: Path, copy: Path) -> int:
    """Add the timestamps that the copy lacks or has in part; returns their number."""
    added = 0
    for token in sorted((source / TOKENS).glob("*.tsr")):
        target = copy / TOKENS / token.name
        for rest in _rest(token.read_bytes(), target):
            target.parent.mkdir(exist_ok=True)
            with target.open("ab") as file:
                file.write(rest)
            added += 1
    return added


def _rest(content: bytes, target: Path) -> Iterator[bytes]:
    """Bytes missing at the end of a file: none for a complete file, or a file with other content."""
    present = target.read_bytes() if target.exists() else b""
    if present != content and content.startswith(present):
        yield content[len(present) :]
