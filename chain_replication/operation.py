"""One update in flight on one chunk of a replica, and the queue behind it. Pure."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fireflyfs.errors import Code
from fireflyfs.updates import UpdateKind

if TYPE_CHECKING:
    from chain_replication.events import ClientUpdate, Forwarded, Repair, SyncChunk, Update
    from chain_replication.versions import AppliedTag

CLEAN_REFUSALS = frozenset({Code.NO_SPACE, Code.CHECKSUM, Code.INVALID})
"""A replica that answers with one of these has not applied the update, nor has anyone behind it."""

_FIRST_DELAY = 0.02
_LONGEST_DELAY = 0.5


class Purpose(enum.Enum):
    UPDATE = "a client's update, on its way down the chain"
    SYNC = "our content of a chunk, for a successor that catches up"
    REPAIR = "a peer's content of a chunk, in place of our rotten one"


class Local(enum.Enum):
    NONE = "nothing to store"
    RUNNING = "being stored"
    DONE = "stored"
    FAILED = "not stored"


class Remote(enum.Enum):
    NONE = "not sent yet"
    SENT = "sent, not answered"
    ACKED = "every replica behind us has it"
    REFUSED = "no replica behind us has it, or will"


class Stage(enum.Enum):
    RUNNING = "being stored and forwarded"
    SETTLING = "decided and answered; the store commits or aborts"


@dataclass(slots=True)
class Operation:
    op: int
    purpose: Purpose
    update: Update
    version: int
    tags: tuple[AppliedTag, ...]
    payload: int
    chain_version: int
    """Under which it came."""
    waiting: list[int]
    local: Local = Local.NONE
    remote: Remote = Remote.NONE
    stage: Stage = Stage.RUNNING
    committed: bool = False
    """Stored as committed at once."""
    attempt: int = 0
    retries: int = 0
    """Attempts that failed since the chain changed."""
    uncertain: bool = False
    """An attempt to forward it had no clear outcome: it may still be applied behind us."""
    exposed: bool = False
    """A serving successor was sent it, and may have shown it to a reader."""
    abandoned: bool = False
    """We serve no more; it stays only until the store is done with it."""
    length: int = 0
    checksum: int = 0
    remote_checksum: int | None = None
    code: Code = Code.OK
    reason: str = ""

    @property
    def removes(self) -> bool:
        return self.update.kind is UpdateKind.REMOVE

    @property
    def hides(self) -> bool:
        """The committed version must not be read: a newer one may have been seen elsewhere."""
        return self.purpose is Purpose.UPDATE and (self.exposed or self.stage is Stage.SETTLING)

    @property
    def store_is_busy(self) -> bool:
        return self.local is Local.RUNNING or self.stage is Stage.SETTLING

    def is_same(self, update: Update) -> bool:
        mine = self.update
        return (mine.client, mine.sequence) == (update.client, update.sequence)

    def delay(self) -> float:
        """Seconds before the next attempt."""
        if not self.retries:
            return 0.0
        return float(min(_FIRST_DELAY * 2 ** min(self.retries - 1, 10), _LONGEST_DELAY))


@dataclass(slots=True)
class ChunkQueue:
    """Updates of one chunk happen one after the other."""

    current: Operation | None = None
    waiting: deque[ClientUpdate | Forwarded | SyncChunk | Repair] = field(default_factory=deque)
    parked: list[int] = field(default_factory=list)
    """Reads that wait for the current operation to end."""
