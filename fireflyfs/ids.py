"""Identifiers: one type for each kind, and the packing of chunk ids.

An id is not a number to compute with, so every kind is a ``NewType``: mixing two is a type error.
"""

from __future__ import annotations

import struct
from typing import NewType

NodeId = NewType("NodeId", int)
"""A process that the cluster manager knows (storage node or metadata server)."""
Generation = NewType("Generation", int)
"""Random 63-bit number drawn by a process when it starts: a new one means that it restarted."""
TargetId = NewType("TargetId", int)
"""One replica of one chain, on one disk of one node."""
ChainId = NewType("ChainId", int)
ChainVersion = NewType("ChainVersion", int)
"""Counts the changes of a chain's membership or of its targets' states, from 1."""
ChunkVersion = NewType("ChunkVersion", int)
"""Counts the updates of one chunk, from 1; 0 means that there is none."""
ClientId = NewType("ClientId", int)
"""Random 63-bit number drawn by each client instance: never reused after a restart."""
InodeId = NewType("InodeId", int)
ChunkId = NewType("ChunkId", bytes)
"""16 bytes, big-endian: owner (an inode id), index of the chunk. Sorts by file, then offset."""

ROOT_INODE = InodeId(1)
CHUNK_ID_SIZE = 16

_CHUNK_ID = struct.Struct(">QQ")


def chunk_id(inode: InodeId, index: int) -> ChunkId:
    """Id of the chunk number ``index`` of a file."""
    return ChunkId(_CHUNK_ID.pack(inode, index))


def chunk_owner(chunk: ChunkId) -> InodeId:
    return InodeId(_CHUNK_ID.unpack(chunk)[0])


def chunk_index(chunk: ChunkId) -> int:
    index: int = _CHUNK_ID.unpack(chunk)[1]
    return index


def target_id(node: NodeId, slot: int) -> TargetId:
    """Id of the target number ``slot`` (0 to 65535) of a node."""
    return TargetId(node << 16 | slot)
