"""What a replica keeps about a chunk, and the decision what an update means to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AppliedTag:
    """The last update of one client that this chunk has taken."""

    client: int
    sequence: int
    version: int


@dataclass(slots=True)
class ChunkMeta:
    """The stored state of one chunk on one target.

    At most one version is pending: ``pending_version`` is 0 or ``version + 1`` (or, for a chunk
    being replaced by recovery, any). The committed one stays readable until the commit.
    """

    version: int
    """Committed; 0 when only a pending first version exists."""
    length: int
    checksum: int
    """CRC32C over the list of the sub-blocks' sums (each 4 bytes, little-endian); 0 when empty."""
    chain_version: int
    """Of the chain when the committed version was applied."""
    pending_version: int = 0
    pending_length: int = 0
    pending_checksum: int = 0
    pending_removed: bool = False
    """The pending update removes the chunk."""
    tags: tuple[AppliedTag, ...] = field(default=())
    """By version, newest last; at most ``MAX_APPLIED_TAGS``; includes the pending update's."""
