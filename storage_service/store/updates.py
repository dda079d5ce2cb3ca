"""What each operation does to a chunk's record. The writer stores the result and publishes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chain_replication.versions import ChunkMeta
from fireflyfs.checksum import first_mismatch
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MAX_CHUNK_SIZE
from fireflyfs.net.messages import UpdateKind
from storage_service.store.drafts import Draft, Drafter
from storage_service.store.record import EMPTY, Block, Record, Redo, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chain_replication.versions import AppliedTag


@dataclass(slots=True)
class Update:
    """A prepare request; see ``ChunkStore.prepare``."""

    kind: UpdateKind
    version: int
    offset: int
    length: int
    data: memoryview
    checksums: Sequence[int]
    chain_version: int
    tags: tuple[AppliedTag, ...]

    def check(self, chunk: bytes) -> None:
        """Raises ``FsError``: INVALID, or CHECKSUM when the data is not what was sent."""
        carries = self.kind in (UpdateKind.WRITE, UpdateKind.REPLACE)
        at = 0 if self.kind is UpdateKind.REPLACE else self.offset
        if self.version <= 0 or min(self.offset, self.length) < 0:
            raise FsError(Code.INVALID, f"chunk {chunk.hex()}: negative offset, length or version")
        if at + self.length > MAX_CHUNK_SIZE:
            raise FsError(Code.INVALID, f"chunk {chunk.hex()}: ends beyond {MAX_CHUNK_SIZE} bytes")
        if len(self.data) != (self.length if carries else 0):
            raise FsError(Code.INVALID, f"chunk {chunk.hex()}: {len(self.data)} bytes of data")
        bad = first_mismatch(at, self.data, self.checksums) if carries else None
        if bad is not None:
            message = f"chunk {chunk.hex()} at offset {bad}: the data does not match its checksum"
            raise FsError(Code.CHECKSUM, message)


@dataclass(slots=True)
class Change:
    """The step from one record of a chunk to the next, and what it takes."""

    chunk: bytes
    before: Record | None
    after: Record | None
    taken: Block | None = None
    redo: Redo | None = None
    released: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = self.after.blocks() if self.after else []
        old = self.before.blocks() if self.before else []
        self.released = [block for block in old if block not in kept]


def prepared(drafter: Drafter, chunk: bytes, record: Record | None, update: Update) -> Change:
    """The update is pending; a pending version that was there is dropped."""
    pending, draft = _drafted(drafter, chunk, record, update)
    committed = record.committed if record else None
    return Change(chunk, record, Record(committed, pending), draft.taken, draft.redo)


def prepared_and_committed(
    drafter: Drafter, chunk: bytes, record: Record | None, update: Update
) -> Change:
    version, draft = _drafted(drafter, chunk, record, update)
    after = _settled(version, update.chain_version)
    return Change(chunk, record, after, draft.taken, draft.redo)


def committed(
    chunk: bytes, record: Record | None, version: int, chain_version: int
) -> Change | None:
    """The pending version is committed; None if nothing is left to do.

    Raises ``FsError(VERSION_GAP)`` if ``version`` is neither pending nor committed.
    """
    if record is None:
        return None
    if record.pending is None or record.pending.number != version:
        if record.committed is not None and version <= record.committed.number:
            return None
        raise FsError(Code.VERSION_GAP, f"chunk {chunk.hex()}: version {version} is not pending")
    return Change(chunk, record, _settled(record.pending, chain_version))


def aborted(chunk: bytes, record: Record | None) -> Change | None:
    """The pending version is dropped; None if there is none."""
    if record is None or record.pending is None:
        return None
    return Change(chunk, record, Record(record.committed) if record.committed else None)


def removed_meta(update: Update) -> ChunkMeta:
    """What is told of a chunk that the update has removed."""
    return ChunkMeta(update.version, 0, 0, update.chain_version, tags=update.tags)


def _settled(pending: Version, chain_version: int) -> Record | None:
    if pending.removed:
        return None
    return Record(Version(pending.number, chain_version, pending.content, pending.tags))


def _drafted(
    drafter: Drafter, chunk: bytes, record: Record | None, update: Update
) -> tuple[Version, Draft]:
    base = record.committed.content if record and record.committed else EMPTY
    removed = update.kind is UpdateKind.REMOVE
    if removed:
        draft = Draft(EMPTY)
    elif update.kind is UpdateKind.REPLACE:
        draft = drafter.replace(update.data, update.checksums)
    elif update.kind is UpdateKind.TRUNCATE:
        draft = drafter.truncate(chunk, base, update.length)
    else:
        draft = drafter.write(chunk, base, update.offset, update.data, update.checksums)
    version = Version(
        update.version, update.chain_version, draft.content, update.tags, removed, draft.changed
    )
    return version, draft
