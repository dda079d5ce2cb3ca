"""What an update does to a chunk: known to the wire, to the protocol and to the store."""

from __future__ import annotations

import enum


class UpdateKind(enum.IntEnum):
    WRITE = 1
    """``length`` bytes of payload at ``offset``; a gap before ``offset`` reads as zeros."""
    TRUNCATE = 2
    """The chunk becomes exactly ``length`` bytes (shrunk, or grown by zeros)."""
    REMOVE = 3
    REPLACE = 4
    """The whole chunk becomes the payload, at the given version (recovery, never from clients)."""
