"""Everything that can go wrong, as one tree; each message says what to do next.

CLMError
├── SettingsError               a setting is unknown, missing or out of range
│   └── PolicyError             a policy document cannot be read, or holds a level that is not allowed
├── MissingExtra                a library is not installed; names the extra that brings it
├── DataError
│   ├── InvalidBars             bars broke a rule; carries the findings with their rows
│   ├── InvalidSymbol           a name that cannot be a symbol, e.g. one that would leave the store's folder
│   ├── UnknownSeries           no source has this symbol and timeframe
│   ├── UnknownFeature          a feature name is not one of `market.features.FEATURES`
│   ├── StoreCorrupt            a stored series is not the one that was written
│   ├── NotEnoughBars           fewer usable bars than the work needs
│   └── SourceUnavailable       an exchange did not answer, or answered nonsense, until the deadline
├── ModelError
│   ├── InvalidTrainingParams   a training parameter is unknown or out of range; names the valid ones
│   ├── InvalidPositions        positions are not one finite value in [-1, 1] for every bar
│   ├── TrainingFailed          a training took too long, or its process died
│   ├── LookAhead               a feature or model knows later bars; names it
│   ├── FeatureMismatch         the bars or features are not those the model was trained on
│   ├── BundleCorrupt           a bundle's files are not those its manifest lists
│   ├── PreflightFailed         a model does not answer as it did when it was saved, or always the same
│   ├── PluginMissing           a plug-in is not installed here; says what to install where that is known
│   ├── PluginFailed            a plug-in cannot be imported, is not as it should be, or raised an error
│   └── NothingTuned            not one trial of a study could be measured, or it has none yet
├── InvalidMessage              a message from outside is none of the events we know; it is set aside
├── DatabaseUnavailable         PostgreSQL cannot be started or reached
├── AuditBroken                 the audit, an export of it or its anchors are not as they were written
├── ServerUnavailable           a server of ours (Prefect) did not become ready
├── StackRunning                `clm up` runs for this home already
├── PortTaken                   a port that a server of ours is to have is in use
├── NotFound                    no such job, version or report
├── AlreadyExists               a job, version or message of that name is recorded already
├── StudyDiffers                a study would go on with other bars, parameters or costs than it began with
├── IllegalTransition           a job or version cannot go from its present status to the wanted one
├── InvalidCursor               a page was asked for that does not belong to the list
├── NotAuthenticated            nobody knows who asks: no token, or none that opens anything
├── NotAllowed                  the role of whoever asks does not permit it
├── NotRetrained                a request to retrain was not granted, or another job serves it
├── PromotionRefused            a version may not serve; carries the reasons
├── ConflictError               what serves was changed by somebody else meanwhile
├── TooManyRequests             more than is allowed in a minute; says when to come back
├── KeyReused                   an idempotency key came with another request before
├── RegistryUnavailable         MLflow did not answer, or could not do what it was asked
├── LeaseLost                   a job is no longer run by who writes about it
├── DeliveryFailed              a receiver of events or alerts did not take one
└── UpkeepIncomplete            a part of the upkeep, or of a watch or shadow, failed; all others were tried
"""

from collections.abc import Sequence
from dataclasses import dataclass


class CLMError(Exception):
    """The root: catch it to answer with a message instead of a traceback."""


class SettingsError(CLMError):
    pass


class DeprecatedSetting(FutureWarning):
    """A setting is given under a former name, accepted for one release; the message has the new name."""


class PolicyError(SettingsError):
    pass


class MissingExtra(CLMError):
    def __init__(self, library: str, extra: str | None) -> None:
        wanted = f"continuous-learning-manager[{extra}]" if extra else "continuous-learning-manager"
        self.command = f"pip install '{wanted}'"
        super().__init__(f"{library} is not installed. Install it with: {self.command}")


class DataError(CLMError):
    pass


@dataclass(frozen=True)
class Finding:
    """One rule that some rows of a series break."""

    rule: str
    """Kebab-case name of the rule, e.g. "high-below-low"."""
    rows: tuple[int, ...]
    """Positions of the offending rows in the file or frame, from 0; at most the first 20."""
    count: int
    """How many rows break the rule; 0 when it is about the file as a whole."""
    message: str
    """What is wrong, with an example and what to do about it."""

    def __str__(self) -> str:
        where = f" ({self.count} rows, first {list(self.rows[:5])})" if self.count else ""
        return f"{self.rule}{where}: {self.message}"


class InvalidBars(DataError):
    def __init__(self, origin: str, findings: Sequence[Finding]) -> None:
        self.origin = origin
        self.findings = tuple(findings)
        super().__init__("\n".join([f"{origin} cannot be used:", *(f"  {f}" for f in findings)]))


class InvalidSymbol(DataError):
    pass


class UnknownSeries(DataError):
    pass


class UnknownFeature(DataError):
    pass


class StoreCorrupt(DataError):
    pass


class NotEnoughBars(DataError):
    pass


class SourceUnavailable(DataError):
    pass


class ModelError(CLMError):
    pass


class InvalidTrainingParams(ModelError):
    pass


class InvalidPositions(ModelError):
    pass


class TrainingFailed(ModelError):
    pass


class LookAhead(ModelError):
    def __init__(self, culprit: str, seen: str) -> None:
        super().__init__(f"{culprit} sees the future: {seen}. Nothing was registered; mend it, then retrain.")


class FeatureMismatch(ModelError):
    pass


class BundleCorrupt(ModelError):
    pass


class PreflightFailed(ModelError):
    pass


class PluginMissing(ModelError):
    pass


class PluginFailed(ModelError):
    pass


class NothingTuned(ModelError):
    pass


class InvalidMessage(CLMError):
    pass


class DatabaseUnavailable(CLMError):
    pass


class AuditBroken(CLMError):
    pass


class ServerUnavailable(CLMError):
    pass


class StackRunning(CLMError):
    pass


class PortTaken(CLMError):
    pass


class NotFound(CLMError):
    pass


class AlreadyExists(CLMError):
    pass


class StudyDiffers(CLMError):
    pass


class IllegalTransition(CLMError):
    pass


class NotAuthenticated(CLMError):
    pass


class InvalidCursor(CLMError):
    pass


class NotAllowed(CLMError):
    pass


class NotRetrained(CLMError):
    pass


class PromotionRefused(CLMError):
    def __init__(self, model_id: str, version: str, reasons: Sequence[str], advice: str) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"{model_id} {version} may not serve: {'; '.join(reasons)}. {advice}")


class ConflictError(CLMError):
    pass


class TooManyRequests(CLMError):
    def __init__(self, what: str, wait_seconds: int) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(f"{what}: try again in {wait_seconds} s.")


class KeyReused(CLMError):
    pass


class RegistryUnavailable(CLMError):
    pass


class LeaseLost(CLMError):
    pass


class DeliveryFailed(CLMError):
    pass


class PassIncomplete(CLMError):
    pass
