"""The only meeting of protocol and IO: feeds a replica its events and carries out its actions.

The replica knows requests by handles; their payloads are kept here, in the buffer in which they
came from the socket, until it releases them: they are stored and forwarded from that same buffer.
"""

from __future__ import annotations

import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.replica import Replica
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChunkId
from fireflyfs.limits import MAX_CHUNK_SIZE
from fireflyfs.net.codec import from_wire
from fireflyfs.net.messages import ForwardReply, ForwardRequest, Method, Tag
from fireflyfs.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from chain_replication.standing import Standing
    from chain_replication.versions import ChunkMeta
    from fireflyfs.ids import TargetId
    from fireflyfs.routing import Chain
    from storage_service.neighbours import Neighbours
    from storage_service.store.store import ChunkStore

logger = logging.getLogger(__name__)

FORWARD_SECONDS = 5.0
"""For one attempt to forward an update; the next change of the chain ends them all."""
COMMIT_RETRY_SECONDS = 0.25
_PAGE = 1024
_AT_ONCE = 4
"""Other targets of the disk take updates at the same time."""


class _Waiter:
    """One request that waits for the replica's answer."""

    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.answer: act.Reply | act.Refuse | act.AnswerRead | None = None
        self.event = trio.Event()


class Driver:
    """One target's replica at work. ``nursery`` owns its actions."""

    def __init__(
        self,
        target: TargetId,
        store: ChunkStore,
        neighbours: Neighbours,
        nursery: trio.Nursery,
        *,
        local_changed: Callable[[], None],
        resync: Callable[[act.StartResync | None], None],
    ) -> None:
        self.target = target
        self.store = store
        self._payloads: dict[int, memoryview | None] = {}
        self._replica = Replica(target, _Lookup(store, self._payloads))
        self._neighbours = neighbours
        self._nursery = nursery
        self._local_changed = local_changed
        self._resync = resync
        self._requests = itertools.count(1)
        self._waiting: dict[int, _Waiter] = {}
        self._forwards: dict[int, trio.CancelScope] = {}
        self._runners: dict[type[Any], Callable[[Any], None]] = {
            act.Persist: partial(self._start, self._persist),
            act.Commit: partial(self._start, self._commit),
            act.Abort: partial(self._start, self._abort),
            act.CommitPendings: partial(self._start, self._commit_pendings),
            act.Forward: self._start_forward,
            act.CancelForward: self._cancel_forward,
            act.Reply: self._answer,
            act.Refuse: self._answer,
            act.AnswerRead: self._answer,
            act.Release: self._release,
            act.StartResync: lambda action: self._resync(action),
            act.StopResync: lambda _: self._resync(None),
            act.LocalChanged: lambda _: self._note_change(),
        }

    @property
    def standing(self) -> Standing:
        return self._replica.standing

    def readable(self, chunk: ChunkId) -> bool:
        return self._replica.readable(chunk)

    def step(self, event: ev.Event) -> None:
        for action in self._replica.step(event, trio.current_time()):
            self._runners[type(action)](action)

    async def ask(
        self,
        request: Callable[[int], ev.Event],
        payload: memoryview | None = None,
        *,
        timeout: float,
    ) -> act.Reply:
        """Put a request to the replica and wait for its reply, at most ``timeout`` seconds.

        Raises FsError: what it refuses with; TIMED_OUT (it goes on all the same).
        """
        answer = await self._ask(request, payload, timeout)
        if answer is None:
            raise FsError(Code.TIMED_OUT, f"target {self.target}: no answer within {timeout:g} s")
        assert isinstance(answer, act.Reply)
        return answer

    async def wait_readable(self, chunk: ChunkId, timeout: float) -> None:
        """Wait until no update hides what is committed. Raises FsError(CHUNK_DIRTY) after
        ``timeout`` seconds."""
        number = 0

        def arrive(request: int) -> ev.Event:
            nonlocal number
            number = request
            return ev.ReadArrived(request, chunk)

        if await self._ask(arrive, None, timeout) is None:
            self.step(ev.ReadExpired(number))
            raise FsError(Code.CHUNK_DIRTY, "an update of the chunk is in flight")

    async def _ask(
        self, make: Callable[[int], ev.Event], payload: memoryview | None, timeout: float
    ) -> act.Reply | act.AnswerRead | None:
        request = next(self._requests)
        waiter = self._waiting[request] = _Waiter()
        if payload is not None:
            self._payloads[request] = payload
        try:
            self.step(make(request))
            if waiter.answer is None:
                with trio.move_on_after(timeout):
                    await waiter.event.wait()
        finally:
            del self._waiting[request]
        if isinstance(waiter.answer, act.Refuse):
            raise FsError(waiter.answer.code, waiter.answer.reason)
        return waiter.answer

    def _answer(self, action: act.Reply | act.Refuse | act.AnswerRead) -> None:
        waiter = self._waiting.get(action.request)
        if waiter is not None:
            waiter.answer = action
            waiter.event.set()

    def _release(self, action: act.Release) -> None:
        self._payloads.pop(action.request, None)

    def _note_change(self) -> None:
        standing = self.standing
        logger.info(
            "the target has changed",
            extra={
                "target": self.target,
                "local": standing.local.name,
                "published": standing.public.name,
                "chain_version": standing.chain_version,
                "reason": standing.reason,
            },
        )
        self._local_changed()

    # The store

    def _start(self, run: Callable[[Any], Any], action: act.Action) -> None:
        self._nursery.start_soon(run, action)

    async def _persist(self, action: act.Persist) -> None:
        update = action.update
        keep = self.store.prepare_and_commit if action.commit else self.store.prepare
        try:
            meta = await keep(
                ChunkId(update.chunk),
                kind=update.kind,
                version=action.version,
                offset=update.offset,
                length=update.length,
                data=self._payloads.get(action.payload),
                checksums=update.checksums,
                chain_version=action.chain_version,
                tags=action.tags,
            )
        except FsError as error:
            logger.warning("target %d cannot store an update: %s", self.target, error)
            self.step(ev.PersistFailed(action.op, error.code, str(error)))
            self._check_store()
        else:
            self.step(_persisted(action, meta))

    async def _commit(self, action: act.Commit) -> None:
        chunk = ChunkId(action.chunk)
        await self._settle(
            action.op, partial(self.store.commit, chunk, action.version, action.chain_version)
        )

    async def _abort(self, action: act.Abort) -> None:
        await self._settle(action.op, partial(self.store.abort, ChunkId(action.chunk)))

    async def _settle(self, op: int, change: Callable[[], Any]) -> None:
        """Decided is decided: a full disk is waited out, any other failure is the target's."""
        while True:
            try:
                await change()
            except FsError as error:
                if error.code is Code.NO_SPACE:
                    await trio.sleep(COMMIT_RETRY_SECONDS)
                    continue
                self.step(ev.TargetFailed(str(error)))
            self.step(ev.Committed(op))
            return

    async def _commit_pendings(self, action: act.CommitPendings) -> None:
        after = b""
        try:
            while page := self.store.list(after, _PAGE):
                for stored in page:
                    if number := stored.meta.pending_version:
                        await self.store.commit(stored.chunk, number, action.chain_version)
                after = page[-1].chunk
                await trio.lowlevel.checkpoint()
        except FsError as error:
            self.step(ev.TargetFailed(f"pending updates cannot be committed: {error}"))
        else:
            self.step(ev.PendingsCommitted(action.token))

    def _check_store(self) -> None:
        """A store that takes no changes any more takes its target out of the chain."""
        if self.store.failure is not None:
            self.step(ev.TargetFailed(self.store.failure))

    def tick(self) -> None:
        self._check_store()
        self.step(ev.Tick())

    # The successor

    def _start_forward(self, action: act.Forward) -> None:
        scope = self._forwards[action.op] = trio.CancelScope()
        self._nursery.start_soon(self._forward, action, scope)

    def _cancel_forward(self, action: act.CancelForward) -> None:
        scope = self._forwards.pop(action.op, None)
        if scope is not None:
            scope.cancel()

    async def _forward(self, action: act.Forward, scope: trio.CancelScope) -> None:
        outcome: ev.Event | None = None
        with scope:
            await trio.sleep(action.delay)
            try:
                reply = await self._send(action)
            except FsError as error:
                outcome = ev.ForwardFailed(action.op, action.attempt, error.code, str(error))
                logger.info("target %d cannot forward an update: %s", self.target, error)
            else:
                outcome = ev.Acknowledged(action.op, action.attempt, reply.version, reply.checksum)
        if self._forwards.get(action.op) is scope:
            del self._forwards[action.op]
        if outcome is not None:
            self.step(outcome)

    async def _send(self, action: act.Forward) -> ForwardReply:
        chain, update = self.standing.chain, action.update
        if chain is None:
            raise FsError(Code.ROUTING_STALE, "the target has left its chain")
        request = _request(chain, self.target, action)
        payload = self._payloads.get(action.payload)
        if action.whole:
            payload = await self._whole(action, request)
        reply = await self._neighbours.call(
            action.target,
            Method.FORWARD,
            request,
            () if payload is None or update.kind is UpdateKind.REMOVE else (payload,),
            timeout=FORWARD_SECONDS,
        )
        return from_wire(ForwardReply, reply.body)

    async def _whole(self, action: act.Forward, request: ForwardRequest) -> memoryview:
        chunk = ChunkId(action.update.chunk)
        found = await self.store.read(chunk, 0, MAX_CHUNK_SIZE, pending=action.pending)
        if found.version != action.version:
            raise FsError(
                Code.INTERNAL,
                f"chunk {chunk.hex()} is stored as version {found.version}, not {action.version}",
            )
        request.kind, request.offset = UpdateKind.REPLACE, 0
        request.length, request.checksums = len(found.data), found.checksums
        return found.data


class _Lookup:
    """The store as the replica sees it."""

    def __init__(self, store: ChunkStore, in_progress: Sized) -> None:
        self._store = store
        self._in_progress = in_progress

    def meta(self, chunk: bytes) -> ChunkMeta | None:
        return self._store.meta(ChunkId(chunk))

    def has_room(self, size: int) -> bool:
        return self._store.has_room(_AT_ONCE * size * (1 + len(self._in_progress)))


def _persisted(action: act.Persist, meta: ChunkMeta) -> ev.Persisted:
    if action.commit:
        return ev.Persisted(action.op, meta.length, meta.checksum)
    return ev.Persisted(action.op, meta.pending_length, meta.pending_checksum)


def _request(chain: Chain, source: TargetId, action: act.Forward) -> ForwardRequest:
    update = action.update
    return ForwardRequest(
        chain.chain_id,
        action.chain_version,
        source,
        update.chunk,
        action.version,
        update.kind,
        update.offset,
        update.length,
        list(update.checksums),
        Tag(update.client, update.sequence),
        [[tag.client, tag.sequence, tag.version] for tag in action.tags],
    )
