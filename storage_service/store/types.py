"""Values of the chunk store's interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain_replication.versions import ChunkMeta
    from fireflyfs.ids import ChunkId


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Written once into the target's directory; a foreign one is refused."""

    cluster_id: str
    target_id: int


@dataclass(slots=True)
class ReadOutcome:
    """Bytes of a committed version, verified , with the sums of their pieces."""

    data: memoryview
    version: int
    checksums: list[int]


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes: taken by chunks' blocks, and what the file system still offers plus that."""

    used: int
    capacity: int
    chunks: int


@dataclass(slots=True)
class StoredChunk:
    chunk: ChunkId
    meta: ChunkMeta
