"""What a replica wants done: the outputs of ``Replica.step``.

The order contract: a replica has at most one action on the store in progress for each chunk, so the
actions of a step may be carried out side by side. Each ``Persist``, ``Commit`` and ``Abort`` is
answered by exactly one event; a ``Forward`` by one, unless it was cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain_replication.events import Update
    from chain_replication.versions import AppliedTag
    from fireflyfs.errors import Code
    from fireflyfs.routing import ChainTarget


@dataclass(frozen=True, slots=True)
class Persist:
    """Store ``version`` as pending, or with ``commit`` as committed."""

    op: int
    payload: int
    """Request that brought the bytes."""
    update: Update
    version: int
    chain_version: int
    tags: tuple[AppliedTag, ...]
    commit: bool


@dataclass(frozen=True, slots=True)
class Commit:
    op: int
    chunk: bytes
    version: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class Abort:
    op: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the update to the successor, after ``delay`` seconds."""

    op: int
    attempt: int
    payload: int
    target: ChainTarget
    chain_version: int
    version: int
    update: Update
    whole: bool
    """Send the stored content as REPLACE, instead of the payload."""
    pending: bool
    """The stored content to send is the pending one."""
    tags: tuple[AppliedTag, ...]
    """To a syncing successor: all records of the chunk."""
    delay: float


@dataclass(frozen=True, slots=True)
class CancelForward:
    op: int


@dataclass(frozen=True, slots=True)
class Reply:
    request: int
    version: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Refuse:
    request: int
    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """The payload of this request is not needed any more."""

    request: int


@dataclass(frozen=True, slots=True)
class AnswerRead:
    """Read the committed version now."""

    request: int


@dataclass(frozen=True, slots=True)
class CommitPendings:
    """Commit every pending version in the store, then ``PendingsCommitted(token)``."""

    token: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class StartResync:
    """Bring the successor up to date; ends the one before."""

    target: ChainTarget
    chain_version: int


@dataclass(frozen=True, slots=True)
class StopResync:
    pass


@dataclass(frozen=True, slots=True)
class LocalChanged:
    """Tell the manager now."""


Action = (
    Persist
    | Commit
    | Abort
    | Forward
    | CancelForward
    | Reply
    | Refuse
    | Release
    | AnswerRead
    | CommitPendings
    | StartResync
    | StopResync
    | LocalChanged
)
