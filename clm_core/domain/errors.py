"""Every error of this software, as a tree; each message says what to do next.

CLMError                        the root
├── SettingsError               a setting is unknown, missing or out of range
│   ├── SecretUnavailable       the server of secrets does not give the value of a setting
│   └── PolicyError             a policy document is malformed, or a level is out of range
├── MissingExtra                an optional library is not installed
├── DataError                   market data cannot be used
│   ├── InvalidBars             bars break validation rules
│   │   └── StoredBarsDiffer    a source gives other values for stored bars
│   ├── InvalidSymbol           a symbol is malformed
│   ├── PoolRefused             symbols cannot make the pool asked for
│   ├── UnknownSeries           no source has the symbol and timeframe
│   ├── InvalidSeries           values of an own series break a rule
│   ├── SeriesMissing           bars come without a series that the model uses
│   ├── UnknownCalendar         no trading calendar has the name
│   ├── UnknownFeature          no feature has the name
│   ├── StoreCorrupt            a stored series was changed
│   ├── NotEnoughBars           too few usable bars
│   └── SourceUnavailable       an exchange does not answer
├── ModelError                  a model cannot be trained, loaded or trusted
│   ├── InvalidTrainingParams   a training parameter is unknown or out of range
│   ├── InvalidPositions        a model's positions are malformed
│   ├── TrainingFailed          a training took too long, or its process died
│   ├── LookAhead               a feature or model uses future bars
│   ├── FeatureMismatch         bars or features differ from the training's
│   ├── FeatureFailed           an own feature cannot be imported, or gives no number
│   ├── BundleCorrupt           the files of a bundle were changed
│   ├── FilesLost               the files of a deleted version are gone or changed
│   ├── ExplanationUnavailable  a model cannot be explained in the way asked for
│   ├── PreflightFailed         a loaded model answers otherwise than at its training
│   ├── PluginMissing           a plug-in is not installed
│   ├── PluginFailed            a plug-in cannot be imported, or raised an error
│   └── NothingTuned            a study has no measured trial
├── InvalidMessage              an incoming message is malformed
├── DatabaseUnavailable         PostgreSQL cannot be started, reached or used
├── StorageUnavailable          the bucket with bars and artifacts cannot be reached or used
├── HomeNotPrivate              the home folder belongs to another user
├── SecretExposed               another user could read the file of a secret
├── HomeMismatch                the versions of the database lie in another home
├── NoHome                      a command that looks was typed where there is no home
├── SessionClosed               a session of a home in Python was closed
├── ArgumentRefused             an argument of the Python API is not allowed
├── HomeUnfinished              the restoration of the home was interrupted
├── BackupFailed                a backup cannot be written
├── BackupDamaged               the file of a backup is no backup, or was changed
├── RestoreRefused              a backup cannot be restored to the place asked for
├── AuditBroken                 the audit, an export or an anchor was changed
├── ServerUnavailable           the Prefect server did not become ready
├── PrefectUnavailable          no Prefect server answers, or the deployment of a run is missing
├── ClusterUnavailable          the API of Kubernetes does not answer
│   └── ClusterRefused          the API of Kubernetes refuses a request
├── WorkersLost                 worker after worker of a search died
├── StackRunning                `clm up` is already running for the home
├── PortTaken                   a port is in use
├── NotFound                    a record does not exist
│   └── ModelHalted             no version of a model is to serve
├── AlreadyExists               a record with the same key exists
├── StudyDiffers                a study cannot continue with other inputs
├── EvidenceChanged             stored evidence differs from its digest
├── EvidenceMissing             what a judgement needs was not stored or measured
├── IllegalTransition           a job or version cannot change to the status
├── InvalidCursor               a cursor does not belong to the list
├── NotAuthenticated            a request has no valid token
├── NotAllowed                  the role does not permit the action
├── NotRetrained                a request to retrain was rejected or coalesced
├── PromotionRefused            a version may not become the production version
├── ApprovalRefused             an answer comes to no waiting approval, or without a reason
├── AllocationRefused           a version may not take part in an allocation
├── ReplayRefused           a replay cannot begin as requested
├── TooManyWaiting              too many candidates wait for their evaluation
├── FillRefused                 a reported fill cannot be true
│   └── BarNotStored            the bar of a reported fill is not stored yet
├── ConflictError               a concurrent change came first
├── TooManyRequests             the limit of requests a minute is exceeded
├── KeyReused                   an idempotency key belongs to a different request
├── RegistryUnavailable         MLflow does not answer, or failed
├── StreamBroken                a stream of events was refused or lost
├── LeaseLost                   the lease of a job was taken over
├── DeliveryFailed              a receiver refused an event or alert
└── PassIncomplete              a part of a scheduled pass failed
"""

from collections.abc import Sequence
from dataclasses import dataclass


class CLMError(Exception):
    """Base of all errors of this software: caught to print a message instead of a traceback."""


class SettingsError(CLMError):
    """A setting is unknown, missing or out of range."""


class SecretUnavailable(SettingsError):
    """The server of secrets does not give the value of a setting; names setting and reference, no value."""

    def __init__(self, setting: str, reference: str, reason: str) -> None:
        super().__init__(f"{setting} is {reference}, which cannot be read: {reason}.")


class DeprecatedSetting(FutureWarning):
    """A setting is given under a former name, accepted for one release; the message has the new name."""


class PolicyError(SettingsError):
    """A policy document cannot be read, or a level is out of range."""


class MissingExtra(CLMError):
    """An optional library is not installed; the message names the extra to install."""

    def __init__(self, library: str, extra: str | None) -> None:
        package = f"continuous-learning-manager[{extra}]" if extra else "continuous-learning-manager"
        self.command = f"pip install '{package}'"
        super().__init__(f"{library} is not installed. Install it with: {self.command}")


class DataError(CLMError):
    """Market data cannot be used."""


@dataclass(frozen=True)
class Finding:
    """A validation rule broken by rows of a series."""

    rule: str
    """Kebab-case name of the rule, e.g. "high-below-low"."""
    rows: tuple[int, ...]
    """Positions of the offending rows in the file or frame, from 0; at most the first 20."""
    count: int
    """Number of rows that break the rule; 0 if the finding concerns the whole file."""
    message: str
    """The defect, with an example and the remedy."""

    def __str__(self) -> str:
        where = f" ({self.count} rows, first {list(self.rows[:5])})" if self.count else ""
        return f"{self.rule}{where}: {self.message}"


class InvalidBars(DataError):
    """Bars break validation rules; carries the findings with the rows."""

    def __init__(self, origin: str, findings: Sequence[Finding]) -> None:
        self.origin = origin
        self.findings = tuple(findings)
        super().__init__("\n".join([f"{origin} cannot be used:", *(f"  {f}" for f in findings)]))


class StoredBarsDiffer(InvalidBars):
    """A source gives other values for stored bars; the message has the command that replaces the bars."""


class InvalidSymbol(DataError):
    """The symbol is malformed, for example a path that would leave the folder of the store."""


class PoolRefused(DataError):
    """Symbols cannot make the pool asked for."""


class UnknownSeries(DataError):
    """No source has a series with the symbol and timeframe."""


class InvalidSeries(DataError):
    """The values of an own series break a rule; the message has the value and the remedy."""


class SeriesMissing(DataError):
    """The bars come without an own series that the model uses; the message says what to pass."""


class UnknownCalendar(DataError):
    """No trading calendar has the name; the message lists similar names."""


class UnknownFeature(DataError):
    """The name is no built-in feature and no own feature of the process."""


class StoreCorrupt(DataError):
    """A stored series differs from the series that was written."""


class NotEnoughBars(DataError):
    """The series has fewer usable bars than the operation needs."""

    def __init__(self, message: str, needed: int | None = None) -> None:
        super().__init__(message)
        self.needed = needed
        """Number of bars without an outage that the operation needs at least, if known."""


class SourceUnavailable(DataError):
    """An exchange did not answer, or sent malformed data, until the deadline."""


class ModelError(CLMError):
    """A model cannot be trained, loaded or trusted."""


class InvalidTrainingParams(ModelError):
    """A training parameter is unknown or out of range; the message lists the valid parameters."""


class InvalidPositions(ModelError):
    """A model's positions are not exactly one finite value in [-1, 1] per bar."""


class TrainingFailed(ModelError):
    """A training exceeded the time limit, or the process died."""


class LookAhead(ModelError):
    """A feature or model uses future bars."""

    def __init__(self, culprit: str, seen: str) -> None:
        super().__init__(
            f"{culprit} sees the future: {seen}. No version was registered; fix the code, then retrain."
        )


class FeatureMismatch(ModelError):
    """The bars or features differ from the bars or features of the training."""


class FeatureFailed(ModelError):
    """An own feature cannot be imported, raised an error or gave no number; names file, function and bar."""


class BundleCorrupt(ModelError):
    """The files of a bundle differ from the manifest."""


class FilesLost(ModelError):
    """The files of a version deleted in MLflow are gone, or are not the registered files."""


class ExplanationUnavailable(ModelError):
    """A model cannot be explained in the way asked for; the message says in which way it can."""


class PreflightFailed(ModelError):
    """A loaded model answers otherwise than at the time of saving, or gives constant answers."""


class PluginMissing(ModelError):
    """A plug-in is not installed; the message names the package to install if known."""


class PluginFailed(ModelError):
    """A plug-in cannot be imported, breaks the contract of models, or raised an error."""


class NothingTuned(ModelError):
    """No trial of a study could be measured, or the study has no trials yet."""


class InvalidMessage(CLMError):
    """An incoming message is not a known event: refused by the API, set aside in the inbox."""


class DatabaseUnavailable(CLMError):
    """PostgreSQL cannot be started or reached, or the tables belong to another release."""


class StorageUnavailable(CLMError):
    """The bucket with bars and artifacts cannot be reached or used; the message says what to do."""


class HomeNotPrivate(CLMError):
    """The home folder belongs to another user of the machine, or cannot be made."""


class SecretExposed(CLMError):
    """Another user of the machine could have read or written the file of a secret."""


class HomeMismatch(CLMError):
    """The versions of the database lie in another home than the home in force."""


class HomeUnfinished(CLMError):
    """The restoration of the home was interrupted: parts of the home may be missing."""


class NoHome(CLMError):
    """A command that shows something was typed where there is no home: nothing was ever trained there."""


class SessionClosed(CLMError):
    """A session of a home in Python was closed, or another home is to be opened before."""


class ArgumentRefused(CLMError):
    """An argument of the Python API is not allowed; names the argument."""


class BackupFailed(CLMError):
    """A backup cannot be written: no home, no space, or a program of PostgreSQL failed."""


class BackupDamaged(CLMError):
    """The file of a backup is no backup, is cut off, or differs from its manifest; names the part."""


class RestoreRefused(CLMError):
    """A backup cannot be restored to a home or server in use, too small or too old."""


class AuditBroken(CLMError):
    """The audit, an export of the audit or the anchors were changed after being written."""


class ServerUnavailable(CLMError):
    """The Prefect server did not become ready in time."""


class PrefectUnavailable(CLMError):
    """No Prefect server answers, or the deployment of a run is missing; names the remedy and no address."""


class ClusterUnavailable(CLMError):
    """The API of Kubernetes does not answer, or answers with an error of its own; try again later."""


class ClusterRefused(ClusterUnavailable):
    """The API of Kubernetes refuses a request: a missing right, a quota, a name in use."""

    def __init__(self, request: str, status: int, reason: str) -> None:
        self.status = status
        super().__init__(f"Kubernetes refused to {request}: {reason}")


class WorkersLost(CLMError):
    """Worker after worker of a search died over the same work."""

    def __init__(self, count: int, cause: object) -> None:
        super().__init__(
            f"{count} workers died one after the other: look at the memory of the machine, or give fewer "
            f"--workers; the same command with --name continues the search. The last error: {cause}"
        )


class StackRunning(CLMError):
    """`clm up` is already running for the home."""


class PortTaken(CLMError):
    """A port needed by a server is in use."""


class NotFound(CLMError):
    """The job, version, report or other record does not exist."""


class ModelHalted(NotFound):
    """No version of the model is to serve: traders hold no position until a promotion or rollback."""


class AlreadyExists(CLMError):
    """A job, version or message with the same key is already recorded."""


class StudyDiffers(CLMError):
    """A study would continue with other bars, parameters or costs than at the start."""


class EvidenceChanged(CLMError):
    """The stored positions behind a verdict differ from their digest, or do not fit the stored bars."""


class EvidenceMissing(CLMError):
    """A verdict cannot be given anew: the evidence that the judgement needs was not stored or measured."""


class IllegalTransition(CLMError):
    """A job or version cannot change from the present status to the requested status."""


class NotAuthenticated(CLMError):
    """The request has no token, or an unknown, expired or revoked token."""


class InvalidCursor(CLMError):
    """The cursor is malformed, or belongs to a list with other filters."""


class NotAllowed(CLMError):
    """The role of the actor does not permit the action."""


class NotRetrained(CLMError):
    """A request to retrain was rejected, or coalesced with another job."""


class PromotionRefused(CLMError):
    """A version may not become the production version; carries the reasons."""

    def __init__(self, model_id: str, version: str, reasons: Sequence[str], advice: str) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"{model_id} {version} may not serve: {'; '.join(reasons)}. {advice}")


class ApprovalRefused(CLMError):
    """An answer to a version that waits for no approval, too late, or a refusal without a reason."""


class AllocationRefused(CLMError):
    """A version may not share the capital of a model, or the weights cannot be kept; says what to do."""


class ReplayRefused(CLMError):
    """A replay cannot begin as requested, because of the policies."""


class TooManyWaiting(CLMError):
    """As many candidates wait for their evaluation as may wait; names the number and what to do."""


class FillRefused(CLMError):
    """A reported fill cannot be true: its time, version or price; names the fill and says what to do."""


class BarNotStored(FillRefused):
    """The bar of a reported fill is not stored yet: the same report is accepted later."""


class ConflictError(CLMError):
    """A concurrent change came first, or holds the lock."""


class TooManyRequests(CLMError):
    """The limit of requests a minute is exceeded; carries the seconds to wait."""

    def __init__(self, limit: str, wait_seconds: int) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(f"{limit}: try again in {wait_seconds} s.")


class KeyReused(CLMError):
    """The idempotency key was used before with a different request."""


class RegistryUnavailable(CLMError):
    """MLflow did not answer, or failed to complete a request."""


class StreamBroken(CLMError):
    """A stream of events was refused, does not answer, or lost its connection."""


class LeaseLost(CLMError):
    """The lease of a job expired and was taken over, or the job has ended."""


class DeliveryFailed(CLMError):
    """A receiver did not accept an event or alert."""


class PassIncomplete(CLMError):
    """A part of the maintenance, of a watch or of a shadow pass failed; all other parts were tried."""
