"""Bringing the successor up to date: carries out what ``chain_replication.resync`` finds.

The order: wait until every update from before this chain version has ended (later ones are
forwarded anyway), tell the successor that its listing will be compared, remove what we do not have,
copy what differs, say that it is done. Any failure starts it over, any change of the chain ends it.
It stays to repeat the last word, which a successor that has restarted meanwhile refuses.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from chain_replication import events as ev
from chain_replication.resync import Listed, compare
from fireflyfs.client.together import together
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import CHUNK_ID_SIZE
from fireflyfs.net.codec import from_wire
from fireflyfs.net.messages import (
    ChunkSummary,
    ListChunksReply,
    ListChunksRequest,
    Method,
    SyncDoneRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chain_replication import actions as act
    from storage_service.driver import Driver
    from storage_service.neighbours import Neighbours
    from storage_service.repair import Repairs
    from storage_service.store.types import StoredChunk

logger = logging.getLogger(__name__)

PAGE = 1024
"""Chunks compared at once."""
AT_ONCE = 4
"""Chunks on their way at once."""
CALL_SECONDS = 5.0
CHUNK_SECONDS = 30.0
DONE_SECONDS = 20.0
"""For the successor to flush what it was sent."""
RETRY_SECONDS = 0.5
CONFIRM_SECONDS = 1.0
_BEFORE_ALL = bytes(CHUNK_ID_SIZE)
"""No chunk has this id (there is no inode 0). A listing from here on is not the begin of a resync,
as one from the empty id is."""


class Resync:
    def __init__(self, driver: Driver, neighbours: Neighbours, repairs: Repairs) -> None:
        self._driver = driver
        self._neighbours = neighbours
        self._repairs = repairs
        self.remaining = 0
        """Chunks of the present page that are still to move."""

    async def run(self, start: act.StartResync, scope: trio.CancelScope) -> None:
        """Until cancelled, which every change of the chain does."""
        with scope:
            while True:
                try:
                    await self._once(start)
                    while True:
                        await self._confirm(start)
                        await trio.sleep(CONFIRM_SECONDS)
                except FsError as error:
                    logger.info("resync begins anew: %s", error, extra=_names(start))
                    await trio.sleep(RETRY_SECONDS)
        self.remaining = 0

    async def _once(self, start: act.StartResync) -> None:
        logger.info("resync begins", extra=_names(start))
        version = start.chain_version
        await self._driver.ask(lambda n: ev.SyncBarrier(n, version), timeout=CHUNK_SECONDS)
        await self._page(start, b"", 1)
        moved = await self._pass(start, copies=False) + await self._pass(start, copies=True)
        logger.info("resync is done", extra={**_names(start), "chunks": moved})

    async def _pass(self, start: act.StartResync, *, copies: bool) -> int:
        """Go over all chunks once; returns how many were moved."""
        moved, after = 0, _BEFORE_ALL
        while True:
            theirs = await self._page(start, after, PAGE)
            ours = self._driver.store.list(after, PAGE)
            difference = compare(
                [_listed(stored) for stored in ours],
                len(ours) < PAGE,
                [_summary(chunk) for chunk in theirs.chunks],
                theirs.end,
            )
            chunks = difference.copies if copies else difference.removals
            await self._move(start, chunks)
            moved += len(chunks)
            if len(ours) < PAGE and theirs.end:
                return moved
            after = difference.upto

    async def _move(self, start: act.StartResync, chunks: Sequence[bytes]) -> None:
        self.remaining = len(chunks)
        await together([partial(self._move_one, start, chunk) for chunk in chunks], AT_ONCE)

    async def _move_one(self, start: act.StartResync, chunk: bytes) -> None:
        try:
            await self._driver.ask(
                lambda n: ev.SyncChunk(n, start.chain_version, chunk), timeout=CHUNK_SECONDS
            )
        except FsError as error:
            if error.code is Code.CHECKSUM:
                self._repairs.begin(chunk)
            raise
        self.remaining -= 1

    async def _page(self, start: act.StartResync, after: bytes, limit: int) -> ListChunksReply:
        request = ListChunksRequest(self._chain(), start.chain_version, after, limit)
        reply = await self._neighbours.call(
            start.target, Method.LIST_CHUNKS, request, timeout=CALL_SECONDS
        )
        listing = from_wire(ListChunksReply, reply.body)
        ids = [chunk.chunk for chunk in listing.chunks]
        ordered = all(len(i) == CHUNK_ID_SIZE for i in ids) and list(_ascending(after, ids)) == ids
        if not ordered or (not ids and not listing.end):
            raise FsError(Code.MALFORMED, "a listing of chunks that is not in order")
        return listing

    async def _confirm(self, start: act.StartResync) -> None:
        request = SyncDoneRequest(self._chain(), start.chain_version)
        await self._neighbours.call(start.target, Method.SYNC_DONE, request, timeout=DONE_SECONDS)

    def _chain(self) -> int:
        chain = self._driver.standing.chain
        if chain is None:
            raise FsError(Code.ROUTING_STALE, "the target has left its chain")
        return chain.chain_id


def _ascending(after: bytes, ids: Sequence[bytes]) -> Iterator[bytes]:
    for chunk in ids:
        if chunk > after:
            yield chunk
        after = chunk


def _listed(stored: StoredChunk) -> Listed:
    meta = stored.meta
    return Listed(
        stored.chunk, meta.version, meta.checksum, meta.length, bool(meta.pending_version)
    )


def _summary(chunk: ChunkSummary) -> Listed:
    return Listed(chunk.chunk, chunk.version, chunk.checksum, chunk.length, chunk.pending)


def _names(start: act.StartResync) -> dict[str, int]:
    return {"successor": start.target.target_id, "chain_version": start.chain_version}
