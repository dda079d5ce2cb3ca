"""What an arrival means when its turn on the chunk has come. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain_replication import events as ev
from chain_replication.versions import (
    AppliedTag,
    ChunkMeta,
    Decision,
    Tombstone,
    decide_client,
    decide_forward,
    decide_recovery,
    with_tag,
)
from fireflyfs.updates import UpdateKind

if TYPE_CHECKING:
    Tags = tuple[AppliedTag, ...]


def decide(
    event: ev.ClientUpdate | ev.Forwarded,
    meta: ChunkMeta | None,
    grave: Tombstone | None,
    *,
    is_serving: bool,
) -> Decision:
    update = event.update
    client, sequence = update.client, update.sequence
    if isinstance(event, ev.ClientUpdate):
        removes = update.kind is UpdateKind.REMOVE
        return decide_client(meta, grave, removes=removes, client=client, sequence=sequence)
    if is_serving:
        return decide_forward(meta, grave, version=event.version, client=client, sequence=sequence)
    return decide_recovery(
        meta,
        grave,
        chain_version=event.chain_version,
        version=event.version,
        last=_newest(event),
    )


def tags_with(
    event: ev.ClientUpdate | ev.Forwarded,
    meta: ChunkMeta | None,
    grave: Tombstone | None,
    version: int,
    *,
    is_serving: bool,
) -> Tags:
    """The records to store with the chunk when the update is applied as ``version``.

    A syncing replica takes those of its predecessor: what it held before may never have been
    acknowledged, so its own records would answer a client for an update that is lost.
    """
    update = event.update
    if isinstance(event, ev.Forwarded) and not is_serving:
        return event.tags
    before = meta.tags if meta is not None else grave.tags if grave is not None else ()
    return with_tag(before, tag_of(update, version))


def tag_of(update: ev.Update, version: int) -> AppliedTag:
    return AppliedTag(update.client, update.sequence, version)


def room_for(update: ev.Update, meta: ChunkMeta | None) -> int:
    """Bytes that storing the update may take; 0 if it makes nothing larger."""
    held = meta.length if meta is not None else 0
    end = update.offset + update.length
    if update.kind is UpdateKind.REMOVE or (update.kind is UpdateKind.TRUNCATE and end <= held):
        return 0
    return max(held, end)


def own_content(chunk: bytes, meta: ChunkMeta | None) -> ev.Update:
    """The update that makes a successor's copy like ours: gone, or replaced."""
    kind = UpdateKind.REPLACE if meta is not None and meta.version else UpdateKind.REMOVE
    return ev.Update(chunk, kind, 0, 0, (), 0, 0)


def _newest(event: ev.Forwarded) -> AppliedTag | None:
    """The last update that the forwarded content has taken."""
    if event.update.kind is UpdateKind.REPLACE:
        return event.tags[-1] if event.tags else None
    return AppliedTag(event.update.client, event.update.sequence, event.version)
