"""Following a training in another process or pod by messages, to the end or the time limit."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clm_core.domain.errors import TrainingFailed
from clm_core.domain.progress import Announce
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining.fold_cache import FoldCache
from clm_core.retraining.training import TrainingSpec
from clm_core.retraining.training_messages import MessageReader, is_done

LOG_TAIL = 2000
"""Number of characters quoted from the end of the log in an error."""


@dataclass(frozen=True)
class TrainingTask:
    """A training to be done in a folder."""

    name: str
    """Id of the job."""
    spec: TrainingSpec
    bars: Bars | Panel
    folder: Path
    cache: FoldCache | None
    """Models of folds fitted by earlier trainings, if any are kept."""

    def arguments(self) -> list[str]:
        """Command line of the training after the name of the module."""
        kept = [] if self.cache is None else ["--cache", str(self.cache.folder), str(self.cache.max_mib)]
        return [str(self.folder), *kept]


class RemoteTraining(Protocol):
    """A training under way in another process or pod."""

    @property
    def has_begun(self) -> bool:
        """True as soon as the time limit counts."""
        ...

    def failure(self) -> TrainingFailed | None:
        """Error of a training that ended without a message; None before the end.

        Raises:
            CLMError: the training cannot be followed any more.
        """
        ...

    def pause(self) -> None:
        """Wait until there may be news."""
        ...


def follow(remote: RemoteTraining, folder: Path, announce: Announce, limit_seconds: float) -> None:
    """Pass the messages of a training on until the training is done.

    Raises:
        TrainingFailed: the training exceeded the limit, or ended without a message.
        CLMError: the error raised by the training.
    """
    messages = MessageReader(folder)
    deadline = math.inf
    while True:
        # before the messages: an ended training has sent all of them
        failure = remote.failure()
        if any(is_done(message, announce) for message in messages.read()):
            return
        if failure is not None:
            raise failure
        if remote.has_begun and deadline == math.inf:
            deadline = time.monotonic() + limit_seconds
        if time.monotonic() > deadline:
            raise TrainingFailed(
                f"the training took longer than {limit_seconds:g} s and was stopped: use fewer bars or "
                "smaller parameters, or raise training.limit_seconds"
            )
        remote.pause()
