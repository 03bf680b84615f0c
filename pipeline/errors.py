"""Every error of ours, and who is to act on it.

    NightjarError
    ├── UserError              exit code 2: the user can mend it, the sentence says how
    │   ├── SpecError          a key of the job spec or a command-line argument
    │   ├── SourceError        what the spec points at: no file, no such column
    │   │   ├── EmptySource    no object, or no row: a wrong path, more often than not
    │   │   └── ShardError     a shard that cannot be read at all
    │   ├── CheckpointError    the model's files: missing, incomplete, not the official layout
    │   ├── OutputError        the dataset at the output: absent, or of another schema
    │   └── CollectionError    what a vector store has under a name: not ours, of another layout
    ├── RunError               exit code 1: the run itself failed, nothing was committed
    │   ├── ConservationError  rows in and rows out differ
    │   ├── CommitConflict     another driver committed first
    │   ├── SourceChanged      an object was replaced while the run read it
    │   ├── DeviceLost         the device fails whatever it is asked: only a new process can use it
    │   ├── CanaryDrift        a worker does not compute what others did
    │   ├── Stalled            nothing has moved for longer than limits.stall
    │   ├── StoreFailed        a vector store has failed for too long, or refuses too much
    │   ├── StoreDiffers       a vector store does not hold what was written to it
    │   ├── Superseded         another backfill of the same collection has begun
    │   └── UnexpectedError    an exception of a worker that is none of these: a bug, shown whole
    ├── SnapshotRefused        exit code 1: committed, and readers do not get it
    ├── JobEnded               the exit code of a job on a cluster that has failed
    └── RowError               one row cannot be embedded: it becomes a quarantine row

All are terminal: repeating the same call gives the same error. What may pass by itself (a busy
object store) is retried where it happens and reaches this tree only when the retries are spent.
"""

from enum import StrEnum


class NightjarError(Exception):
    """Base of all; the message is one sentence fit to be shown to a user."""

    exit_code = 1


class UserError(NightjarError):
    """The user can mend it."""

    exit_code = 2


class SpecError(UserError):
    """A key of the job spec, or a command-line argument."""


class SourceError(UserError):
    """What the spec's source points at."""


class EmptySource(SourceError):
    """A source without an object or without a row."""


class ShardError(SourceError):
    """A shard that cannot be read at all: cut, damaged, or of another format."""


class CheckpointError(UserError):
    """The model's files."""


class OutputError(UserError):
    """The dataset at the output."""


class CollectionError(UserError):
    """What a vector store has under the name of a collection."""


class RunError(NightjarError):
    """The run failed; nothing was committed."""


class ConservationError(RunError):
    """Rows in and rows out differ."""


class CommitConflict(RunError):
    """Another driver committed the same version first."""


class SourceChanged(RunError):
    """An object of the source was replaced while the run read it."""


class DeviceLost(RunError):
    """The device fails whatever it is asked; a new process may be able to use it again."""


class HeadLost(RunError):
    """The cluster is gone: its head does not answer any more."""


class CanaryDrift(RunError):
    """A worker does not make of fixed items what others made of them."""


class Stalled(RunError):
    """Nothing has moved for too long."""


class StoreFailed(RunError):
    """A vector store has failed for too long, or refuses too much."""


class StoreDiffers(RunError):
    """A vector store does not hold what was written to it."""


class Superseded(RunError):
    """Another backfill of the same collection has begun since this one did."""


class SnapshotRefused(NightjarError):
    """The gate did not give a snapshot to readers; it is a candidate."""


class JobEnded(NightjarError):
    """A job on a cluster has not gone well; it has said why itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnexpectedError(RunError):
    """A worker raised what none of ours describes; its cause says what."""


class Reason(StrEnum):
    """Why a row was quarantined."""

    NULL_INPUT = "null_input"
    EMPTY_INPUT = "empty_input"
    INVALID_UNICODE = "invalid_unicode"
    UNKNOWN_TASK = "unknown_task"
    NULL_ID = "null_id"
    MALFORMED_RECORD = "malformed_record"
    IMAGE_NOT_FOUND = "image_not_found"
    UNSAFE_PATH = "unsafe_path"
    NOT_AN_IMAGE = "not_an_image"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_ASPECT_RATIO = "image_aspect_ratio"
    OOM = "oom"
    NON_FINITE = "non_finite"
    DECODER_CRASH = "decoder_crash"
    WORKER_CRASH = "worker_crash"
    UNEXPECTED_ERROR = "unexpected_error"


MAY_PASS = frozenset(
    {
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_TOO_LARGE,
        Reason.UNSAFE_PATH,
        Reason.OOM,
        Reason.NON_FINITE,
        Reason.DECODER_CRASH,
        Reason.WORKER_CRASH,
        Reason.UNEXPECTED_ERROR,
    }
)
"""Reasons that do not lie in the row alone: later, or with other limits, it may go well."""


class RowError(NightjarError):
    """One row cannot be embedded; the run goes on without it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[Reason, str]]:
        return (RowError, (self.reason, str(self)))
