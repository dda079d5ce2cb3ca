"""Updates on their way through one replica: the heart of the protocol. Pure.

An operation is one update in flight. It is stored (``Local``) and forwarded (``Remote``) at the
same time, and ``_advance`` looks at both to decide what comes next:

    local    remote     what
    DONE     ACKED      commit and answer; the same where there is no successor
    FAILED   REFUSED    nobody has it: answer why not; the same where there is no successor
    DONE     REFUSED    nobody behind us has it: drop ours, answer why not
    FAILED   ACKED      those behind us have what we cannot hold: step down, the chain goes on
    any      SENT       wait; an attempt that fails is repeated until the chain changes

The last replica of the chain stores an update as committed at once; from then on a reader may see
it there. So every serving replica before it hides its own committed version (``Operation.hides``)
from the moment it forwards, and parks reads until the update has settled. To a syncing successor
goes the whole stored content, once it is stored here; nobody reads there, so nothing is hidden for
its sake.

When the chain changes, operations in flight are forwarded again to whoever follows now. That is
safe as an update is known by its version behind the head, and by the client's tag at the head.

As forwarding does not wait for storing, the tail may hold (and show) an unacknowledged update that
nobody before it has stored yet. If all replicas die at that instant, only the last of the chain
holds everything that a reader has seen: the manager should revive from it if it can choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.operation import (
    CLEAN_REFUSALS,
    ChunkQueue,
    Local,
    Operation,
    Purpose,
    Remote,
    Stage,
)
from chain_replication.turn import decide, own_content, room_for, tag_of, tags_with
from chain_replication.versions import AppliedTag, ChunkMeta, Storage, Tombstones, Verdict
from fireflyfs.errors import Code, FsError
from fireflyfs.routing import PublicState

if TYPE_CHECKING:
    from chain_replication.standing import Standing

MAX_QUEUE = 1024
"""Updates that wait for their turn on one chunk."""

Arrival = ev.ClientUpdate | ev.Forwarded | ev.SyncChunk | ev.Repair


class Pipeline:
    """The operations of one replica. ``actions`` collects what it wants done."""

    def __init__(self, standing: Standing, storage: Storage) -> None:
        self.actions: list[act.Action] = []
        self.now = 0.0
        self._standing = standing
        self._storage = storage
        self._chunks: dict[bytes, ChunkQueue] = {}
        self._operations: dict[int, Operation] = {}
        self._tombstones = Tombstones()
        self._barriers: list[tuple[int, set[int]]] = []
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._operations)

    def readable(self, chunk: bytes) -> bool:
        queue = self._chunks.get(chunk)
        return queue is None or queue.current is None or not queue.current.hides

    # Arrivals that were admitted

    def enqueue(self, event: Arrival) -> None:
        queue = self._chunks.setdefault(event.chunk, ChunkQueue())
        if queue.current is None:
            queue.waiting.append(event)
            self._next(event.chunk, queue)
        elif not self._join(queue.current, event):
            if len(queue.waiting) >= MAX_QUEUE:
                self.reject(event, Code.OVERLOADED, "too many updates of one chunk")
            else:
                queue.waiting.append(event)

    def park(self, event: ev.ReadArrived) -> None:
        queue = self._chunks.get(event.chunk)
        if queue is None or self.readable(event.chunk):
            self.actions.append(act.AnswerRead(event.request))
        else:
            queue.parked.append(event.request)

    def unpark(self, event: ev.ReadExpired) -> None:
        for queue in self._chunks.values():
            if event.request in queue.parked:
                queue.parked.remove(event.request)
                self.refuse(event.request, Code.CHUNK_DIRTY, "an update of the chunk is in flight")
                return

    def barrier(self, request: int, *, answered_only: bool) -> None:
        """Answer the request when the operations of now have ended."""
        awaited = {
            op
            for op, operation in self._operations.items()
            if not answered_only or operation.stage is Stage.SETTLING
        }
        self._barriers.append((request, awaited))
        self._open_barriers(0)

    def reject(self, event: Arrival, code: Code, reason: str) -> None:
        self.refuse(event.request, code, reason)
        if not isinstance(event, ev.SyncChunk):
            self.actions.append(act.Release(event.request))

    def refuse(self, request: int, code: Code, reason: str) -> None:
        self.actions.append(act.Refuse(request, code, reason))

    def _join(self, current: Operation, event: Arrival) -> bool:
        """A repeated request waits for the operation that its first copy has begun."""
        if isinstance(event, ev.SyncChunk | ev.Repair) or current.abandoned:
            return False
        if current.purpose is not Purpose.UPDATE or not current.is_same(event.update):
            return False
        if isinstance(event, ev.Forwarded) and event.version != current.version:
            return False
        if current.code is not Code.OK:
            return False  # it fails; the repeat is tried anew
        self.actions.append(act.Release(event.request))
        if current.stage is Stage.SETTLING:
            self._answer(current, event.request)
        else:
            current.waiting.append(event.request)
        return True

    # The turn of an arrival

    def _next(self, chunk: bytes, queue: ChunkQueue) -> None:
        while queue.current is None and queue.waiting:
            event = queue.waiting.popleft()
            try:
                self._begin(queue, event)
            except FsError as error:
                self.reject(event, error.code, str(error))
        if queue.current is None and not queue.parked:
            self._chunks.pop(chunk, None)

    def _begin(self, queue: ChunkQueue, event: Arrival) -> None:
        """Decide what the arrival means to the chunk as it is now. Raises FsError to refuse it."""
        meta = self._storage.meta(event.chunk)
        if isinstance(event, ev.SyncChunk):
            self._begin_sync(queue, event, meta)
            return
        if isinstance(event, ev.Repair):
            self._begin_repair(queue, event, meta)
            return
        grave = self._tombstones.get(event.chunk)
        is_serving = self._standing.public is PublicState.SERVING
        decision = decide(event, meta, grave, is_serving=is_serving)
        if decision.verdict is Verdict.APPLY:
            # While the successor stores it we cannot refuse any more: a full disk does so here.
            size = room_for(event.update, meta)
            if size and self._standing.successor is not None and not self._storage.has_room(size):
                raise FsError(Code.NO_SPACE, "the disk is full")
            version = decision.version
            tags = tags_with(event, meta, grave, version, is_serving=is_serving)
            self._begin_update(queue, event, version, tags)
        elif decision.verdict is Verdict.DONE:
            length, checksum = (meta.length, meta.checksum) if meta is not None else (0, 0)
            if meta is None and isinstance(event, ev.ClientUpdate):
                self._tombstones.extend(event.chunk, tag_of(event.update, decision.version))
            self.actions.append(act.Reply(event.request, decision.version, length, checksum))
            self.actions.append(act.Release(event.request))
        elif decision.verdict is Verdict.SUPERSEDED:
            raise FsError(Code.SUPERSEDED, "the client has since made a later update of the chunk")
        else:
            reason = (
                f"chunk {event.chunk.hex()}: updates after version {decision.version} are missing"
            )
            self.step_down(reason)
            raise FsError(Code.VERSION_GAP, reason)

    def _begin_update(
        self,
        queue: ChunkQueue,
        event: ev.ClientUpdate | ev.Forwarded,
        version: int,
        tags: tuple[AppliedTag, ...],
    ) -> None:
        operation = self._admit(queue, event.request, Purpose.UPDATE, event.update, version, tags)
        operation.committed = self._standing.successor is None
        self._persist(operation)
        self._forward(operation)

    def _begin_sync(self, queue: ChunkQueue, event: ev.SyncChunk, meta: ChunkMeta | None) -> None:
        update = own_content(event.chunk, meta)
        version, tags = (meta.version, meta.tags) if meta is not None else (0, ())
        operation = self._admit(queue, event.request, Purpose.SYNC, update, version, tags)
        if meta is not None:
            operation.length, operation.checksum = meta.length, meta.checksum
        operation.local, operation.committed = Local.DONE, True
        self._advance(operation)

    def _begin_repair(self, queue: ChunkQueue, event: ev.Repair, meta: ChunkMeta | None) -> None:
        if meta is None or meta.version != event.version:
            raise FsError(Code.SUPERSEDED, "the chunk has changed since it was found damaged")
        operation = self._admit(
            queue, event.request, Purpose.REPAIR, event.update, event.version, meta.tags
        )
        operation.committed = True
        self._persist(operation)

    def _admit(
        self,
        queue: ChunkQueue,
        request: int,
        purpose: Purpose,
        update: ev.Update,
        version: int,
        tags: tuple[AppliedTag, ...],
    ) -> Operation:
        self._drawn += 1
        under = self._standing.chain_version
        operation = Operation(
            self._drawn, purpose, update, version, tags, request, under, [request]
        )
        queue.current = self._operations[operation.op] = operation
        return operation

    def _persist(self, operation: Operation) -> None:
        operation.local = Local.RUNNING
        self.actions.append(
            act.Persist(
                operation.op,
                operation.payload,
                operation.update,
                max(1, operation.version),
                operation.chain_version,
                operation.tags,
                operation.committed,
            )
        )

    # Forwarding

    def _forward(self, operation: Operation) -> None:
        """Send it on, if that may be done already."""
        successor = self._standing.successor
        if successor is None or operation.remote is not Remote.NONE:
            return
        serves = successor.state is PublicState.SERVING
        if not serves and operation.local is not Local.DONE:
            return
        if operation.purpose is Purpose.REPAIR or operation.abandoned:
            return
        delay = operation.delay()
        operation.attempt += 1
        operation.remote = Remote.SENT
        operation.exposed |= serves
        self.actions.append(
            act.Forward(
                operation.op,
                operation.attempt,
                operation.payload,
                successor,
                self._standing.chain_version,
                operation.version,
                operation.update,
                whole=not serves and not operation.removes,
                pending=not operation.committed,
                tags=() if serves else operation.tags,
                delay=delay,
            )
        )

    def acknowledged(self, event: ev.Acknowledged) -> None:
        operation = self._operations.get(event.op)
        if operation is None or operation.attempt != event.attempt:
            return
        operation.remote = Remote.ACKED
        if event.version == operation.version and not operation.removes:
            operation.remote_checksum = event.checksum
        self._advance(operation)

    def forward_failed(self, event: ev.ForwardFailed) -> None:
        operation = self._operations.get(event.op)
        if operation is None or operation.attempt != event.attempt:
            return
        if self._is_final(operation, event.code):
            operation.remote = Remote.REFUSED
            if operation.code is Code.OK:
                operation.code, operation.reason = event.code, event.reason
            self._advance(operation)
            return
        operation.uncertain = True
        operation.retries += 1
        operation.remote = Remote.NONE
        self._forward(operation)

    def _is_final(self, operation: Operation, code: Code) -> bool:
        """Nobody behind us has the update or will. No client is refused for the sake of a replica
        that only catches up: that one steps down by itself if it cannot follow."""
        if operation.purpose is Purpose.SYNC:
            return code in CLEAN_REFUSALS
        return code in CLEAN_REFUSALS and operation.exposed and not operation.uncertain

    # Outcomes in the store

    def persisted(self, event: ev.Persisted) -> None:
        operation = self._operations.get(event.op)
        if operation is None:
            return
        operation.local = Local.DONE
        operation.length, operation.checksum = event.length, event.checksum
        if operation.committed:
            self._bury(operation)
        self._advance(operation)

    def persist_failed(self, event: ev.PersistFailed) -> None:
        operation = self._operations.get(event.op)
        if operation is None:
            return
        operation.local = Local.FAILED
        operation.code, operation.reason = event.code, event.reason
        is_syncing = self._standing.public is PublicState.SYNCING and not operation.abandoned
        if is_syncing and event.code is not Code.CHECKSUM:
            # The chain must not fail its clients for a replica that it does not need.
            self.step_down(event.reason)
        self._advance(operation)

    def settled(self, event: ev.Committed) -> None:
        operation = self._operations.get(event.op)
        if operation is None:
            return
        if operation.code is Code.OK:
            self._bury(operation)
        self._finish(operation)

    def forget(self) -> None:
        """We do not serve: what we have removed, others may still have, rightly."""
        self._tombstones = Tombstones()

    def _bury(self, operation: Operation) -> None:
        if not operation.abandoned:
            chunk, removed = operation.update.chunk, operation.removes
            self._tombstones.update(chunk, operation.version, operation.tags, removed=removed)

    # The decision

    def _advance(self, operation: Operation) -> None:
        """See the table at the top."""
        if operation.stage is Stage.SETTLING or operation.op not in self._operations:
            return
        if operation.abandoned:
            if operation.local is not Local.RUNNING:
                self._finish(operation)
            return
        if operation.local is Local.RUNNING:
            return
        alone = self._standing.successor is None or operation.purpose is Purpose.REPAIR
        if operation.local is Local.FAILED:
            self._advance_failed(operation, alone)
        elif alone or operation.remote is Remote.ACKED:
            self._advance_done(operation)
        elif operation.remote is Remote.REFUSED and operation.committed:
            self._fail(operation)  # recovery: our store is as it was
        elif operation.remote is Remote.REFUSED:
            operation.stage = Stage.SETTLING
            self.actions.append(act.Abort(operation.op, operation.update.chunk))
        else:
            self._forward(operation)

    def _advance_failed(self, operation: Operation, alone: bool) -> None:
        if operation.remote is Remote.ACKED and operation.exposed:
            self.step_down(f"cannot store what its successor holds: {operation.reason}")
        elif alone or operation.remote is not Remote.SENT:
            self._fail(operation)

    def _advance_done(self, operation: Operation) -> None:
        there = operation.remote_checksum
        if there is not None and there != operation.checksum:
            # The successor's may have been read already, so it is ours that has to be replaced.
            reason = f"chunk {operation.update.chunk.hex()} differs from the successor's"
            self.step_down(f"{reason} at version {operation.version}")
            return
        for request in operation.waiting:
            self._answer(operation, request)
        operation.waiting.clear()
        if operation.committed:
            self._finish(operation)
            return
        operation.stage = Stage.SETTLING
        chunk, chain_version = operation.update.chunk, self._standing.chain_version
        self.actions.append(act.Commit(operation.op, chunk, operation.version, chain_version))

    def _answer(self, operation: Operation, request: int) -> None:
        self.actions.append(
            act.Reply(request, operation.version, operation.length, operation.checksum)
        )

    def _fail(self, operation: Operation) -> None:
        for request in operation.waiting:
            self.refuse(request, operation.code, operation.reason)
        operation.waiting.clear()
        self._finish(operation)

    def _finish(self, operation: Operation) -> None:
        for request in operation.waiting:
            self.refuse(request, operation.code, operation.reason)
        del self._operations[operation.op]
        if operation.purpose is not Purpose.SYNC:
            self.actions.append(act.Release(operation.payload))
        chunk = operation.update.chunk
        queue = self._chunks[chunk]
        queue.current = None
        self.actions += [act.AnswerRead(request) for request in queue.parked]
        queue.parked.clear()
        self._open_barriers(operation.op)
        self._next(chunk, queue)

    def _open_barriers(self, op: int) -> None:
        for request, awaited in self._barriers:
            awaited.discard(op)
            if not awaited:
                self.actions.append(act.Reply(request, 0, 0, 0))
        self._barriers = [barrier for barrier in self._barriers if barrier[1]]

    # When the chain changes

    def reroute(self) -> None:
        """We go on serving, in a new version of the chain."""
        self._drop_waiting(keep_clients=self._standing.is_head)
        for operation in list(self._operations.values()):
            if operation.purpose is Purpose.SYNC:
                self._abandon(operation, Code.ROUTING_STALE, "the chain has changed")
            elif not operation.abandoned and operation.stage is Stage.RUNNING:
                self._reroute(operation)

    def _reroute(self, operation: Operation) -> None:
        if operation.remote is Remote.ACKED:
            return
        if operation.remote is Remote.SENT:
            self.actions.append(act.CancelForward(operation.op))
            operation.uncertain = True
        operation.remote, operation.retries = Remote.NONE, 0
        operation.attempt += 1  # what the last one brings is not for the present successor
        if operation.local is not Local.FAILED:
            operation.code, operation.reason = Code.OK, ""
        self._forward(operation)
        self._advance(operation)

    def drop(self, code: Code, reason: str) -> None:
        """We serve no more: whoever waits is told, and what is in flight is left as it is."""
        self._drop_waiting(keep_clients=False, code=code, reason=reason)
        for operation in list(self._operations.values()):
            self._abandon(operation, code, reason)
        for request, _ in self._barriers:
            self.refuse(request, code, reason)
        self._barriers.clear()

    def step_down(self, reason: str) -> None:
        """This replica is not fit: it leaves the chain and comes back by recovery."""
        self._standing.step_down(reason, self.now)
        self.drop(Code.NOT_SERVING, reason)
        self.actions.append(act.LocalChanged())

    def _abandon(self, operation: Operation, code: Code, reason: str) -> None:
        for request in operation.waiting:
            self.refuse(request, code, reason)
        operation.waiting.clear()
        queue = self._chunks[operation.update.chunk]
        for request in queue.parked:
            self.refuse(request, code, reason)
        queue.parked.clear()
        if operation.remote is Remote.SENT:
            self.actions.append(act.CancelForward(operation.op))
        operation.abandoned = True
        operation.attempt += 1
        self._advance(operation)

    def _drop_waiting(
        self,
        *,
        keep_clients: bool,
        code: Code = Code.ROUTING_STALE,
        reason: str = "the chain has changed",
    ) -> None:
        for queue in self._chunks.values():
            kept = []
            for event in queue.waiting:
                if keep_clients and isinstance(event, ev.ClientUpdate | ev.Repair):
                    kept.append(event)
                else:
                    self.reject(event, code, reason)
            queue.waiting.clear()
            queue.waiting.extend(kept)
