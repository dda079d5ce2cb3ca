"""What the data plane asks of a storage node. Everything is checked here before it is acted upon.

Who asks has proved to know the cluster's secret; what it asks may still be nonsense.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from chain_replication import events as ev
from chain_replication.versions import AppliedTag
from fireflyfs.checksum import piece_count
from fireflyfs.client.together import together
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import CHUNK_ID_SIZE, InodeId
from fireflyfs.limits import MAX_APPLIED_TAGS, MAX_BATCH, MAX_CHUNK_SIZE
from fireflyfs.net.codec import from_wire
from fireflyfs.net.messages import (
    ChunkSummary,
    FlushRequest,
    ForwardReply,
    ForwardRequest,
    ListChunksReply,
    ListChunksRequest,
    Method,
    QueryReply,
    QueryRequest,
    ReadRequest,
    SyncDoneRequest,
    UpdateReply,
    UpdateRequest,
)
from fireflyfs.net.server import Response
from fireflyfs.routing import LocalState
from fireflyfs.updates import UpdateKind
from storage_service.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chain_replication.standing import Standing
    from fireflyfs.net.server import Request
    from fireflyfs.routing import ChainTarget
    from storage_service.lease import Lease
    from storage_service.neighbours import Neighbours
    from storage_service.store.types import StoredChunk
    from storage_service.targets import Target, Targets

UPDATE_SECONDS = 30.0
FLUSH_SECONDS = 20.0
SYNC_SECONDS = 5.0
SETTLE_SECONDS = 5.0
_CARRIES = (UpdateKind.WRITE, UpdateKind.REPLACE)
_MAX_INT32 = (1 << 32) - 1


class Handlers:
    """``handle`` is the node's handler of requests."""

    def __init__(self, targets: Targets, neighbours: Neighbours, lease: Lease) -> None:
        self._targets = targets
        self._neighbours = neighbours
        self._lease = lease
        self._reader = Reader(targets, lease)
        self._by_method: dict[Method, Callable[[Request], Awaitable[Response]]] = {
            Method.READ: self._read,
            Method.UPDATE: self._update,
            Method.FORWARD: self._forward,
            Method.QUERY: self._query,
            Method.FLUSH: self._flush,
            Method.LIST_CHUNKS: self._list_chunks,
            Method.SYNC_DONE: self._sync_done,
        }

    async def handle(self, request: Request) -> Response:
        handler = self._by_method.get(request.method)
        if handler is None:
            name = request.method.name
            raise FsError(Code.UNKNOWN_METHOD, f"a storage node does not answer {name}")
        return await handler(request)

    async def _read(self, request: Request) -> Response:
        return await self._reader.read(from_wire(ReadRequest, request.body))

    async def _update(self, request: Request) -> Response:
        message = from_wire(UpdateRequest, request.body)
        update = _checked(message, request.payload)
        if update.kind is UpdateKind.REPLACE:
            raise FsError(Code.INVALID, "clients do not replace chunks")
        target = self._targets.of_chain(message.chain)
        reply = await target.driver.ask(
            lambda number: ev.ClientUpdate(number, message.chain_version, update),
            request.payload if update.kind is UpdateKind.WRITE else None,
            timeout=UPDATE_SECONDS,
        )
        self._lease.check()
        return Response(UpdateReply(reply.version, reply.length))

    async def _forward(self, request: Request) -> Response:
        """No lease is needed to acknowledge: the head needs one to answer, and a predecessor at the
        same chain version is answered right, whatever has become of us."""
        message = from_wire(ForwardRequest, request.body)
        update, tags = _checked(message, request.payload), _tags(message)
        if update.kind is not UpdateKind.REMOVE and not message.version:
            raise FsError(Code.INVALID, "version 0 is no version of a chunk")
        target = self._targets.of_chain(message.chain)
        reply = await target.driver.ask(
            lambda number: ev.Forwarded(
                number, message.chain_version, message.source, message.version, update, tags
            ),
            request.payload if update.kind in _CARRIES else None,
            timeout=UPDATE_SECONDS,
        )
        return Response(ForwardReply(reply.version, reply.checksum))

    async def _query(self, request: Request) -> Response:
        message = from_wire(QueryRequest, request.body)
        limit = _limit(message.limit)
        target = self._targets.of_chain(message.chain)
        await target.driver.ask(ev.Settle, timeout=SETTLE_SECONDS)
        found = target.store.query(InodeId(message.owner), message.first_index, limit)
        target.driver.standing.check_serving()
        self._lease.check()
        return Response(
            QueryReply([[index, length] for index, length in found], len(found) < limit)
        )

    async def _flush(self, request: Request) -> Response:
        """Ours and that of every target behind us, at the same time. The syncing one, too: it may
        serve, and be the one that revives the chain, a moment later."""
        message = from_wire(FlushRequest, request.body)
        target = self._targets.of_chain(message.chain)
        standing = target.driver.standing
        _check_takes_updates(standing, message.chain_version)
        jobs: list[Callable[[], Awaitable[None]]] = [target.store.flush]
        if standing.successor is not None:
            jobs.append(partial(self._flush_behind, standing.successor, message))
        await together(jobs)
        _check_takes_updates(standing, message.chain_version)
        self._lease.check()
        return Response()

    async def _flush_behind(self, successor: ChainTarget, message: FlushRequest) -> None:
        await self._neighbours.call(successor, Method.FLUSH, message, timeout=FLUSH_SECONDS)

    async def _list_chunks(self, request: Request) -> Response:
        message = from_wire(ListChunksRequest, request.body)
        limit = _limit(message.limit)
        if len(message.after) not in (0, CHUNK_ID_SIZE):
            raise FsError(Code.INVALID, f"a chunk id has {CHUNK_ID_SIZE} bytes")
        target = self._targets.of_chain(message.chain)
        if not message.after:
            await target.driver.ask(
                lambda number: ev.SyncBegan(number, message.chain_version), timeout=SYNC_SECONDS
            )
        self._check_syncing(target, message.chain_version)
        found = target.store.list(message.after, limit)
        return Response(ListChunksReply([_summary(s) for s in found], len(found) < limit))

    def _check_syncing(self, target: Target, chain_version: int) -> None:
        target.driver.standing.check_version(chain_version)
        target.driver.standing.check_syncing()

    async def _sync_done(self, request: Request) -> Response:
        """What came by recovery may have been flushed where it came from, long ago: it is on our
        medium, too, before we may serve."""
        message = from_wire(SyncDoneRequest, request.body)
        target = self._targets.of_chain(message.chain)
        self._check_syncing(target, message.chain_version)
        if target.driver.standing.local is not LocalState.UPTODATE:
            await target.store.flush()
        await target.driver.ask(
            lambda number: ev.SyncDone(number, message.chain_version), timeout=SYNC_SECONDS
        )
        return Response()


def _check_takes_updates(standing: Standing, chain_version: int) -> None:
    standing.check_version(chain_version)
    if not standing.is_syncing:
        standing.check_serving()


def _checked(message: UpdateRequest | ForwardRequest, payload: memoryview) -> ev.Update:
    """The update that a message asks for. Raises FsError(INVALID)."""
    try:
        kind = UpdateKind(message.kind)
    except ValueError:
        raise FsError(Code.INVALID, f"there is no update of kind {message.kind}") from None
    if len(message.chunk) != CHUNK_ID_SIZE:
        raise FsError(Code.INVALID, f"a chunk id has {CHUNK_ID_SIZE} bytes")
    if message.offset + message.length > MAX_CHUNK_SIZE:
        raise FsError(Code.INVALID, f"a chunk ends at {MAX_CHUNK_SIZE} bytes at the latest")
    if kind is not UpdateKind.WRITE and message.offset:
        raise FsError(Code.INVALID, f"{kind.name} has no offset")
    if kind is UpdateKind.REMOVE and message.length:
        raise FsError(Code.INVALID, "REMOVE has no length")
    expected = message.length if kind in _CARRIES else 0
    sums = message.checksums
    if len(payload) != expected or len(sums) != piece_count(message.offset, expected):
        raise FsError(Code.INVALID, "payload or checksums do not fit the length")
    if sums and max(sums) > _MAX_INT32:
        raise FsError(Code.INVALID, "a checksum has 32 bits")
    tag = message.tag
    return ev.Update(
        message.chunk,
        kind,
        message.offset,
        message.length,
        tuple(sums),
        tag.client,
        tag.sequence,
    )


def _tags(message: ForwardRequest) -> tuple[AppliedTag, ...]:
    if len(message.tags) > MAX_APPLIED_TAGS or any(len(row) != 3 for row in message.tags):
        raise FsError(Code.INVALID, "the records of a chunk's updates are malformed")
    return tuple(AppliedTag(*row) for row in message.tags)


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_BATCH:
        raise FsError(Code.INVALID, f"a listing has 1 to {MAX_BATCH} entries")
    return limit


def _summary(stored: StoredChunk) -> ChunkSummary:
    meta = stored.meta
    return ChunkSummary(
        stored.chunk,
        meta.chain_version,
        meta.version,
        meta.checksum,
        meta.length,
        bool(meta.pending_version),
    )
