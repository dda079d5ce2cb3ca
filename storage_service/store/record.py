"""What the store knows about a chunk, in memory and as bytes.

A *content* is one version's bytes: a block, a length, the CRC32C of every sub-block, and which redo
writes belong to it. A *record* has the committed content and at most one pending one. Records are
immutable: an update makes a new one, so a reader's snapshot stays what it was.

Encoding of a record (all little-endian)::

    format u8 | flags u8 | two places, committed and pending, each:
        size class u8, slot u32, length u32, redo_upto u64        (class 255: no block)
    committed: version u64, chain version u64, sums u32 (count) + 4 bytes each, tags
    pending:   version u64, chain version u64, first u32, replaced u32, sums as above, tags
    CRC32C u32 of the chunk's id and all of the above

``tags`` is a count (u16) and (client u64, sequence u64, version u64) each. The pending sums are the
committed ones with ``replaced`` sums from ``first`` on exchanged for the given ones: a small write
into a large chunk costs a small record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from chain_replication.versions import AppliedTag, ChunkMeta
from fireflyfs.checksum import crc32c
from fireflyfs.errors import Code, FsError
from storage_service.store.allocator import block_size

FORMAT = 1
_NO_BLOCK = 255
_COMMITTED, _PENDING, _REMOVED = 1, 2, 4
_PLACES = struct.Struct("<BBBIIQBIIQ")
_HEAD = struct.Struct("<QQI")
_PENDING_HEAD = struct.Struct("<QQIII")
_COUNT = struct.Struct("<H")
_TAG = struct.Struct("<QQQ")
_SUM = struct.Struct("<I")
_REDO = struct.Struct("<BII")

Location = tuple[int, int]
"""(size class, slot)."""


@dataclass(slots=True, eq=False)
class Redo:
    """Bytes that belong at ``offset`` of a block and are (or were) not there yet."""

    sequence: int
    location: Location
    offset: int
    data: bytes
    applied: bool = False
    """Written in place; the redo stays until that write is durable."""
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.offset + len(self.data)


@dataclass(slots=True, eq=False)
class Block:
    """A block in use, with what only the running process needs to know about it."""

    size_class: int
    slot: int
    high: int = 0
    """Bytes from here on are of no version that a reader or a recovery may ask for."""
    readers: int = 0
    redos: tuple[Redo, ...] = ()
    """By sequence; replaced, never changed, so that a reader may keep it."""
    released: bool = False
    """No record refers to it any more; free once that is durable and nobody reads it."""

    @property
    def size(self) -> int:
        return block_size(self.size_class)

    @property
    def location(self) -> Location:
        return self.size_class, self.slot


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of one version. ``block`` is None exactly when ``length`` is 0."""

    block: Block | None
    length: int
    sums: bytes
    """CRC32C of each sub-block, 4 bytes each, little-endian."""
    redo_upto: int = 0
    """The block's redos up to this sequence are part of this content."""

    @property
    def redos(self) -> tuple[Redo, ...]:
        if self.block is None or not self.block.redos:
            return ()
        redos = self.block.redos
        if redos[-1].sequence <= self.redo_upto:
            return redos
        return tuple(redo for redo in redos if redo.sequence <= self.redo_upto)

    @property
    def checksum(self) -> int:
        return crc32c(self.sums) if self.sums else 0

    def sum_list(self, first: int, last: int) -> list[int]:
        """Sums of the sub-blocks ``first`` to ``last - 1``."""
        return list(struct.unpack_from(f"<{last - first}I", self.sums, first * 4))


EMPTY = Content(None, 0, b"")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a chunk: number, content, exactly-once records."""

    number: int
    chain_version: int
    content: Content
    tags: tuple[AppliedTag, ...] = ()
    removed: bool = False
    changed: tuple[int, int] = (0, 0)
    """Pending only: sums [first, end) of this content differ from the committed one's, and the rest
    before and after agree; (0, 0) when nothing is known to agree."""


@dataclass(frozen=True, slots=True)
class Record:
    committed: Version | None
    pending: Version | None = None

    def meta(self) -> ChunkMeta:
        now = self.committed or Version(0, 0, EMPTY)
        meta = ChunkMeta(
            version=now.number,
            length=now.content.length,
            checksum=now.content.checksum,
            chain_version=now.chain_version,
            tags=now.tags,
        )
        if self.pending is not None:
            meta.pending_version = self.pending.number
            meta.pending_length = self.pending.content.length
            meta.pending_checksum = self.pending.content.checksum
            meta.pending_removed = self.pending.removed
            meta.tags = self.pending.tags
        return meta

    def contents(self) -> list[Content]:
        versions = (self.committed, self.pending)
        return [version.content for version in versions if version is not None]

    def blocks(self) -> list[Block]:
        """Each block once."""
        found: list[Block] = []
        for content in self.contents():
            if content.block is not None and content.block not in found:
                found.append(content.block)
        return found


@dataclass(slots=True)
class Places:
    """The fixed start of an encoded record: all that opening a store needs of most records."""

    blocks: list[tuple[Location, int]] = field(default_factory=list)
    """Each block once, with the redo_upto of its newest content."""


def encode(chunk: bytes, record: Record) -> bytes:
    committed, pending = record.committed, record.pending
    flags = (_COMMITTED if committed else 0) | (_PENDING if pending else 0)
    if pending and pending.removed:
        flags |= _REMOVED
    parts = [_PLACES.pack(FORMAT, flags, *_place(committed), *_place(pending))]
    if committed:
        sums = committed.content.sums
        parts += [_HEAD.pack(committed.number, committed.chain_version, len(sums) // 4), sums]
        parts += _encode_tags(committed.tags)
    if pending:
        parts += _encode_pending(committed, pending)
    body = b"".join(parts)
    return body + _SUM.pack(crc32c(body, crc32c(chunk)))


def _place(version: Version | None) -> tuple[int, int, int, int]:
    if version is None:
        return _NO_BLOCK, 0, 0, 0
    content = version.content
    if content.block is None:
        return _NO_BLOCK, 0, content.length, content.redo_upto
    return content.block.size_class, content.block.slot, content.length, content.redo_upto


def _encode_pending(committed: Version | None, pending: Version) -> list[bytes]:
    sums = pending.content.sums
    base = len(committed.content.sums) // 4 if committed else 0
    first, end = pending.changed if pending.changed[1] else (0, len(sums) // 4)
    replaced = base - first - (len(sums) // 4 - end)
    middle = sums[first * 4 : end * 4]
    head = _PENDING_HEAD.pack(
        pending.number, pending.chain_version, first, replaced, len(middle) // 4
    )
    return [head, middle, *_encode_tags(pending.tags)]


def _encode_tags(tags: tuple[AppliedTag, ...]) -> list[bytes]:
    return [_COUNT.pack(len(tags))] + [_TAG.pack(t.client, t.sequence, t.version) for t in tags]


def places(chunk: bytes, raw: bytes) -> Places:
    """Blocks of an encoded record. Raises ``FsError(CHECKSUM)`` if the record is damaged."""
    _check(chunk, raw)
    _, _, class1, slot1, _, upto1, class2, slot2, _, upto2 = _PLACES.unpack_from(raw)
    found = Places()
    if class1 != _NO_BLOCK:
        upto = max(upto1, upto2) if (class2, slot2) == (class1, slot1) else upto1
        found.blocks.append(((class1, slot1), upto))
    if class2 != _NO_BLOCK and (class2, slot2) != (class1, slot1):
        found.blocks.append(((class2, slot2), upto2))
    return found


def _check(chunk: bytes, raw: bytes) -> None:
    if len(raw) < _PLACES.size + 4 or raw[0] != FORMAT:
        raise FsError(Code.CHECKSUM, f"chunk {chunk.hex()}: the record is not of format {FORMAT}")
    body = memoryview(raw)[:-4]
    if crc32c(body, crc32c(chunk)) != _SUM.unpack_from(raw, len(body))[0]:
        raise FsError(Code.CHECKSUM, f"chunk {chunk.hex()}: the record does not match its checksum")


def decode(chunk: bytes, raw: bytes) -> Record:
    """The record, with new ``Block`` objects. Raises ``FsError(CHECKSUM)`` if it is damaged."""
    _check(chunk, raw)
    _, flags, class1, slot1, length1, upto1, class2, slot2, length2, upto2 = _PLACES.unpack_from(
        raw
    )
    block1 = None if class1 == _NO_BLOCK else Block(class1, slot1, high=length1)
    block2 = None if class2 == _NO_BLOCK else Block(class2, slot2, high=length2)
    if block1 is not None and block2 is not None and block1.location == block2.location:
        block1.high = max(length1, length2)
        block2 = block1
    position = _PLACES.size
    committed = pending = None
    if flags & _COMMITTED:
        number, chain_version, count = _HEAD.unpack_from(raw, position)
        position += _HEAD.size
        sums = raw[position : position + 4 * count]
        position += 4 * count
        tags, position = _decode_tags(raw, position)
        committed = Version(number, chain_version, Content(block1, length1, sums, upto1), tags)
    if flags & _PENDING:
        number, chain_version, first, replaced, count = _PENDING_HEAD.unpack_from(raw, position)
        position += _PENDING_HEAD.size
        base = committed.content.sums if committed else b""
        middle = raw[position : position + 4 * count]
        sums = base[: first * 4] + middle + base[(first + replaced) * 4 :]
        tags, _ = _decode_tags(raw, position + 4 * count)
        content = Content(block2, length2, sums, upto2)
        changed = (first, first + count) if block2 is block1 and block1 is not None else (0, 0)
        pending = Version(number, chain_version, content, tags, bool(flags & _REMOVED), changed)
    return Record(committed, pending)


def _decode_tags(raw: bytes, position: int) -> tuple[tuple[AppliedTag, ...], int]:
    (count,) = _COUNT.unpack_from(raw, position)
    position += _COUNT.size
    end = position + count * _TAG.size
    return tuple(AppliedTag(*_TAG.unpack_from(raw, at)) for at in range(position, end, 24)), end


def encode_redo(redo: Redo) -> bytes:
    return _REDO.pack(*redo.location, redo.offset) + redo.data


def decode_redo(sequence: int, raw: bytes) -> Redo:
    size_class, slot, offset = _REDO.unpack_from(raw)
    return Redo(sequence, (size_class, slot), offset, raw[_REDO.size :])
