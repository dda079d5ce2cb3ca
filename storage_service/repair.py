"""Rot that a read has found: the chunk is fetched from another serving replica and put in place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chain_replication import events as ev
from fireflyfs.errors import Code, FsError, code_of
from fireflyfs.ids import ChunkId
from fireflyfs.limits import MAX_CHUNK_SIZE
from fireflyfs.net.codec import from_wire
from fireflyfs.net.messages import Method, ReadItem, ReadReply, ReadRequest
from fireflyfs.routing import PublicState
from fireflyfs.updates import UpdateKind

if TYPE_CHECKING:
    import trio

    from fireflyfs.routing import Chain, ChainTarget
    from storage_service.driver import Driver
    from storage_service.neighbours import Neighbours

logger = logging.getLogger(__name__)

CALL_SECONDS = 10.0
MAX_AT_ONCE = 16
"""Of one target; rot beyond is repaired when it is read again."""


class Repairs:
    def __init__(self, driver: Driver, neighbours: Neighbours, nursery: trio.Nursery) -> None:
        self._driver = driver
        self._neighbours = neighbours
        self._nursery = nursery
        self._chunks: set[bytes] = set()

    def begin(self, chunk: bytes) -> None:
        """In the background; nothing if it is being repaired already."""
        if chunk not in self._chunks and len(self._chunks) < MAX_AT_ONCE:
            self._chunks.add(chunk)
            self._nursery.start_soon(self._repair, chunk)

    async def _repair(self, chunk: bytes) -> None:
        names = {"target": self._driver.target, "chunk": chunk.hex()}
        try:
            await self._from_any(chunk)
            logger.warning("repaired a damaged chunk", extra=names)
        except FsError as error:
            logger.error("a damaged chunk is not repaired: %s", error, extra=names)
        finally:
            self._chunks.discard(chunk)

    async def _from_any(self, chunk: bytes) -> None:
        chain = self._driver.standing.chain
        others = [] if chain is None else [t for t in chain.targets if self._may_help(t)]
        failure = FsError(Code.CHAIN_UNAVAILABLE, "no other replica serves")
        for peer in others:
            assert chain is not None
            try:
                await self._from_peer(chain, peer, chunk)
            except FsError as error:
                failure = error
            else:
                return
        raise failure

    def _may_help(self, peer: ChainTarget) -> bool:
        return peer.state is PublicState.SERVING and peer.target_id != self._driver.target

    async def _from_peer(self, chain: Chain, peer: ChainTarget, chunk: bytes) -> None:
        request = ReadRequest([ReadItem(chain.chain_id, chunk, 0, MAX_CHUNK_SIZE)])
        reply = await self._neighbours.call(peer, Method.READ, request, timeout=CALL_SECONDS)
        results = from_wire(ReadReply, reply.body).results
        if len(results) != 1 or results[0].length != len(reply.payload):
            raise FsError(Code.MALFORMED, "an answer that does not fit the question")
        [found] = results
        if found.code:
            raise FsError(code_of(found.code), found.message)
        meta = self._driver.store.meta(ChunkId(chunk))
        if meta is None or meta.version != found.version:
            raise FsError(Code.SUPERSEDED, "the chunk has changed meanwhile")
        sums = tuple(found.checksums)
        update = ev.Update(chunk, UpdateKind.REPLACE, 0, found.length, sums, 0, 0)
        await self._driver.ask(
            lambda n: ev.Repair(n, found.version, update), reply.payload, timeout=CALL_SECONDS
        )
