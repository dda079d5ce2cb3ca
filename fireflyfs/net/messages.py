"""Bodies of the data plane's requests and replies, and their checks.

A message is a dataclass; on the wire it is the MessagePack list of its fields, in order (see
``proto/wire.md``). ``from_wire`` checks every field: types, ranges, counts. What it accepts is safe
to act upon; everything else raises ``FsError(MALFORMED)``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fireflyfs.updates import UpdateKind as UpdateKind


class Method(enum.IntEnum):
    """What a request frame asks for."""

    PING = 1
    CONTROL = 2
    """A control-plane call (``fireflyfs/rpc``): body [full method name], payload: the protobuf."""
    READ = 3
    UPDATE = 4
    """Client to head: one update of one chunk."""
    FORWARD = 5
    """Predecessor to successor: the same update with its version, or a whole chunk."""
    QUERY = 6
    """Chunks of one owner from an index on: their ids and lengths."""
    FLUSH = 7
    """Every update acknowledged before is on the medium of every serving target of the chain."""
    LIST_CHUNKS = 8
    """Predecessor to a syncing successor: one page of its chunks."""
    SYNC_DONE = 9
    """Predecessor to successor: it now holds everything, as of a chain version."""


@dataclass(slots=True)
class ReadItem:
    chain: int
    chunk: bytes
    offset: int
    length: int


@dataclass(slots=True)
class ReadRequest:
    """Many reads, all of targets of the node that is asked."""

    items: list[ReadItem]


@dataclass(slots=True)
class ReadResult:
    """``length`` bytes of payload belong to this item: fewer than asked where the chunk ends (0 for
    a chunk that does not exist); what is missing reads as zeros within the file's length."""

    code: int
    length: int
    version: int
    checksums: list[int]
    """CRC32C of each piece (``fireflyfs.checksum``) of those bytes."""
    message: str = ""


@dataclass(slots=True)
class ReadReply:
    results: list[ReadResult]


@dataclass(slots=True)
class Tag:
    """Makes an update exactly-once: a client sends one update of a chunk at a time, each with the
    next ``sequence``; a retry carries the same."""

    client: int
    sequence: int


@dataclass(slots=True)
class UpdateRequest:
    chain: int
    chain_version: int
    chunk: bytes
    kind: int
    offset: int
    length: int
    checksums: list[int]
    """Of the payload's pieces; empty without payload."""
    tag: Tag


@dataclass(slots=True)
class UpdateReply:
    version: int
    length: int
    """Of the chunk after the update."""


@dataclass(slots=True)
class ForwardRequest:
    chain: int
    chain_version: int
    source: int
    """Target that forwards."""
    chunk: bytes
    version: int
    """That the chunk gets; for REPLACE the version of the content."""
    kind: int
    offset: int
    length: int
    checksums: list[int]
    tag: Tag
    tags: list[list[int]]
    """To a syncing successor: all records [client, sequence, version] of the chunk, so that
    exactly-once survives recovery; empty otherwise."""


@dataclass(slots=True)
class ForwardReply:
    version: int
    checksum: int
    """Of the whole chunk at that version, to compare replicas (CRC32C of the list of sums)."""


@dataclass(slots=True)
class QueryRequest:
    chain: int
    owner: int
    first_index: int
    limit: int


@dataclass(slots=True)
class QueryReply:
    chunks: list[list[int]]
    """[index, length], by index."""
    end: bool


@dataclass(slots=True)
class FlushRequest:
    chain: int
    chain_version: int


@dataclass(slots=True)
class ListChunksRequest:
    chain: int
    chain_version: int
    after: bytes
    """Chunks with greater ids; empty to begin."""
    limit: int


@dataclass(slots=True)
class ChunkSummary:
    chunk: bytes
    chain_version: int
    version: int
    checksum: int
    length: int
    pending: bool
    """An update was stored but not committed here."""


@dataclass(slots=True)
class ListChunksReply:
    chunks: list[ChunkSummary]
    end: bool


@dataclass(slots=True)
class SyncDoneRequest:
    chain: int
    chain_version: int
