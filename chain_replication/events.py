"""What happens to a replica: the inputs of ``Replica.step``.

``request`` is a handle that the driver draws for everything that waits for an answer; the payload
that came with it stays with the driver under the same handle until ``Release``. ``op`` and
``attempt`` are handles of the replica, given back with the outcome of its actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain_replication.versions import AppliedTag
    from fireflyfs.errors import Code
    from fireflyfs.routing import Chain
    from fireflyfs.updates import UpdateKind


@dataclass(frozen=True, slots=True)
class Update:
    """One update of one chunk, without its bytes."""

    chunk: bytes
    kind: UpdateKind
    offset: int
    length: int
    checksums: tuple[int, ...]
    client: int
    sequence: int


# From the manager


@dataclass(frozen=True, slots=True)
class RoutingChanged:
    """The chain of this target as last published (None: it is on none). Only routing that knows the
    present generation of the node may be told: older routing speaks of a life before."""

    chain: Chain | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Once a second or so."""


# From clients


@dataclass(frozen=True, slots=True)
class ClientUpdate:
    request: int
    chain_version: int
    update: Update

    @property
    def chunk(self) -> bytes:
        return self.update.chunk


@dataclass(frozen=True, slots=True)
class ReadArrived:
    """A read of a chunk that was not ``readable``."""

    request: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class ReadExpired:
    """The driver's bound for a parked read has passed."""

    request: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Answered when every update that was answered is committed, so that a listing shows it."""

    request: int


# From the predecessor


@dataclass(frozen=True, slots=True)
class Forwarded:
    request: int
    chain_version: int
    source: int
    """Target that forwards."""
    version: int
    update: Update
    tags: tuple[AppliedTag, ...]
    """To a syncing replica: the predecessor's records of the chunk."""

    @property
    def chunk(self) -> bytes:
        return self.update.chunk


@dataclass(frozen=True, slots=True)
class SyncBegan:
    """The predecessor begins to compare its chunks with ours."""

    request: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class SyncDone:
    """The predecessor says that we hold everything."""

    request: int
    chain_version: int


# From this node's own recovery of its successor, and of itself


@dataclass(frozen=True, slots=True)
class SyncBarrier:
    """Answered when every update that is now in flight has ended."""

    request: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class SyncChunk:
    """Make the successor's copy of this chunk like ours (or removed like ours)."""

    request: int
    chain_version: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Repair:
    """Put the payload in place of our rotten copy, if that is still of ``version``."""

    request: int
    version: int
    update: Update

    @property
    def chunk(self) -> bytes:
        return self.update.chunk


# Outcomes of actions


@dataclass(frozen=True, slots=True)
class Persisted:
    op: int
    length: int
    checksum: int
    """Of the chunk with the update."""


@dataclass(frozen=True, slots=True)
class PersistFailed:
    """Nothing has changed in the store."""

    op: int
    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Committed:
    """Or, after ``Abort``, dropped."""

    op: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    op: int
    attempt: int
    version: int
    checksum: int


@dataclass(frozen=True, slots=True)
class ForwardFailed:
    op: int
    attempt: int
    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class PendingsCommitted:
    token: int


@dataclass(frozen=True, slots=True)
class TargetFailed:
    """The store takes no changes any more: until the node is restarted the target is offline."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The process ends: whoever waits is told."""


Event = (
    RoutingChanged
    | Tick
    | ClientUpdate
    | ReadArrived
    | ReadExpired
    | Settle
    | Forwarded
    | SyncBegan
    | SyncDone
    | SyncBarrier
    | SyncChunk
    | Repair
    | Persisted
    | PersistFailed
    | Committed
    | Acknowledged
    | ForwardFailed
    | PendingsCommitted
    | TargetFailed
    | Stopped
)
