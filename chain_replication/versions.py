"""What a replica keeps about a chunk, and the decision what an update means to it. Pure.

Versions of a chunk count its updates. An update of version ``u`` that comes from the predecessor
meets a chunk whose committed version is ``v``:

    u <= v       done already (a repeated forward, or a chain that changed after we committed)
    u == v + 1   the next one: apply it
    u > v + 1    a gap: we lack what our predecessor has committed, so we may not serve
    no chunk     apply it as ``u``, unless the chunk was removed after it (see below)

A removed chunk leaves a tombstone in memory with the updates that it had taken, so that a late
duplicate does not revive it. Tombstones are few and do not survive a restart, so no decision may
rest on one replica having a tombstone that another lacks: an update whose tag a tombstone does not
know is a new one, whatever its version.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from fireflyfs.limits import MAX_APPLIED_TAGS

MAX_TOMBSTONES = 4096
"""Of one target; the oldest is forgotten first."""


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


class Storage(Protocol):
    """What a replica looks up by itself: memory, not IO."""

    def meta(self, chunk: bytes) -> ChunkMeta | None:
        """Of the last update that the store has taken. Raises FsError for a damaged record."""
        ...

    def has_room(self, size: int) -> bool:
        """Whether one more update of a chunk of ``size`` bytes will surely fit. What must go on
        when a disk is full, removals for one, does not ask."""
        ...


@dataclass(frozen=True, slots=True)
class Tombstone:
    version: int
    tags: tuple[AppliedTag, ...]


class Tombstones:
    """The chunks of one target that were removed last."""

    def __init__(self, limit: int = MAX_TOMBSTONES) -> None:
        self._limit = limit
        self._by_chunk: OrderedDict[bytes, Tombstone] = OrderedDict()

    def get(self, chunk: bytes) -> Tombstone | None:
        return self._by_chunk.get(chunk)

    def add(self, chunk: bytes, tombstone: Tombstone) -> None:
        self._by_chunk[chunk] = tombstone
        self._by_chunk.move_to_end(chunk)
        while len(self._by_chunk) > self._limit:
            self._by_chunk.popitem(last=False)

    def extend(self, chunk: bytes, tag: AppliedTag) -> None:
        """A removal found nothing to remove: a late repeat must not remove what comes next."""
        grave = self.get(chunk)
        tags = grave.tags if grave is not None else ()
        self.add(chunk, Tombstone(tag.version, with_tag(tags, tag)))

    def update(
        self, chunk: bytes, version: int, tags: tuple[AppliedTag, ...], *, removed: bool
    ) -> None:
        """Remember a chunk that was removed; forget one that is there again."""
        if removed:
            self.add(chunk, Tombstone(version, tags))
        else:
            self._by_chunk.pop(chunk, None)

    def __len__(self) -> int:
        return len(self._by_chunk)


class Verdict(enum.Enum):
    APPLY = "apply it, as the version that the decision names"
    DONE = "it was applied before: answer as then"
    SUPERSEDED = "a later update of the same client was applied: nobody waits for this one"
    GAP = "updates before it are missing here"


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    version: int
    """That the update gets, or got."""


def recorded(tags: tuple[AppliedTag, ...], client: int) -> AppliedTag | None:
    return next((tag for tag in reversed(tags) if tag.client == client), None)


def with_tag(tags: tuple[AppliedTag, ...], tag: AppliedTag) -> tuple[AppliedTag, ...]:
    """``tags`` with the newest record of one client in place of its older one."""
    kept = [old for old in tags if old.client != tag.client]
    return (*kept[-(MAX_APPLIED_TAGS - 1) :], tag)


def decide_client(
    meta: ChunkMeta | None,
    tombstone: Tombstone | None,
    *,
    removes: bool,
    client: int,
    sequence: int,
) -> Decision:
    """At the head: is the update new, and which version does it get?"""
    version, tags = _known(meta, tombstone)
    applied = recorded(tags, client)
    if applied is not None and sequence <= applied.sequence:
        repeated = sequence == applied.sequence
        return Decision(Verdict.DONE if repeated else Verdict.SUPERSEDED, applied.version)
    if meta is None and removes:
        return Decision(Verdict.DONE, version)
    return Decision(Verdict.APPLY, version + 1)


def decide_forward(
    meta: ChunkMeta | None, tombstone: Tombstone | None, *, version: int, client: int, sequence: int
) -> Decision:
    """At a serving replica behind the head: the table at the top of this module."""
    if meta is None or meta.version == 0:
        return _decide_absent(tombstone, version, client, sequence)
    if version <= meta.version:
        return Decision(Verdict.DONE, meta.version)
    if version == meta.version + 1:
        return Decision(Verdict.APPLY, version)
    return Decision(Verdict.GAP, meta.version)


def decide_recovery(
    meta: ChunkMeta | None,
    tombstone: Tombstone | None,
    *,
    chain_version: int,
    version: int,
    last: AppliedTag | None,
) -> Decision:
    """At a syncing replica: the predecessor's content is the truth, whatever we hold from before.

    Only what came in the same chain version from the same predecessor may be newer than a late
    duplicate. ``last`` is the newest update that the content has taken.
    """
    if meta is None or meta.version == 0:
        if last is None:
            return Decision(Verdict.APPLY, version)
        return _decide_absent(tombstone, version, last.client, last.sequence)
    if meta.chain_version == chain_version and version <= meta.version:
        return Decision(Verdict.DONE, meta.version)
    return Decision(Verdict.APPLY, version)


def _known(
    meta: ChunkMeta | None, tombstone: Tombstone | None
) -> tuple[int, tuple[AppliedTag, ...]]:
    if meta is not None:
        return meta.version, meta.tags
    if tombstone is not None:
        return tombstone.version, tombstone.tags
    return 0, ()


def _decide_absent(
    tombstone: Tombstone | None, version: int, client: int, sequence: int
) -> Decision:
    applied = recorded(tombstone.tags, client) if tombstone is not None else None
    if tombstone is not None and applied is not None and sequence <= applied.sequence:
        return Decision(Verdict.DONE, tombstone.version)
    return Decision(Verdict.APPLY, version)
