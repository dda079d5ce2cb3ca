"""One target at work: the real replica, and what ``storage_service.driver`` does with its actions.

The order contract is mirrored: the actions of a step are started one after the other and go on side
by side; each outcome is one more event; a cancelled forward brings none.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.replica import Replica
from fireflyfs.errors import Code, FsError
from fireflyfs.updates import UpdateKind
from tests.simulation.kernel import Future
from tests.simulation.messages import Forwarding

if TYPE_CHECKING:
    from collections.abc import Callable

    from fireflyfs.ids import TargetId
    from tests.simulation.kernel import Kernel, Process, Task
    from tests.simulation.node import StorageNode
    from tests.simulation.store import Content, SimStore

FORWARD_SECONDS = 5.0
COMMIT_RETRY_SECONDS = 0.25
PAGE = 3


class Target:
    def __init__(self, node: StorageNode, target: TargetId, store: SimStore) -> None:
        self.node = node
        self.process: Process = node.process
        self.kernel: Kernel = node.process.kernel
        self.target = target
        self.store = store
        self.replica = Replica(target, store)
        self.observe: Callable[[Target, ev.Event, list[act.Action]], None] = lambda *_: None
        self._requests = itertools.count(1)
        self._waiting: dict[int, Future[act.Reply | act.AnswerRead]] = {}
        self._payloads: dict[int, Content] = {}
        self._forwards: dict[int, Task] = {}
        self._resync: Task | None = None
        self._runners: dict[type[Any], Callable[[Any], None]] = {
            act.Persist: lambda a: self._spawn(self._persist(a)),
            act.Commit: lambda a: self._spawn(self._commit(a)),
            act.Abort: lambda a: self._spawn(self._abort(a)),
            act.CommitPendings: lambda a: self._spawn(self._commit_pendings(a)),
            act.Forward: self._start_forward,
            act.CancelForward: self._cancel_forward,
            act.Reply: lambda a: self._answer(a.request, a),
            act.Refuse: self._refuse,
            act.AnswerRead: lambda a: self._answer(a.request, a),
            act.Release: self._release,
            act.StartResync: self._start_resync,
            act.StopResync: lambda _: self._stop_resync(),
            act.LocalChanged: lambda _: self._note_change(),
        }

    @property
    def standing(self) -> Any:
        return self.replica.standing

    def step(self, event: ev.Event) -> None:
        actions = self.replica.step(event, self.process.clock())
        if self.kernel.tracing:
            self.kernel.trace(f"target {self.target}", _brief(event), *map(_brief, actions))
        self.observe(self, event, actions)
        for action in actions:
            self._runners[type(action)](action)

    def _spawn(self, coroutine: Any) -> None:
        self.process.spawn(coroutine)

    # Requests

    async def ask(
        self,
        make: Callable[[int], ev.Event],
        payload: Content | None = None,
        *,
        timeout: float,
    ) -> act.Reply:
        """Raises FsError: the refusal; TIMED_OUT (it goes on all the same)."""
        reply = await self._ask(next(self._requests), make, payload, timeout)
        assert isinstance(reply, act.Reply)
        return reply

    async def _ask(
        self,
        request: int,
        make: Callable[[int], ev.Event],
        payload: Content | None,
        timeout: float,
    ) -> act.Reply | act.AnswerRead:
        future: Future[act.Reply | act.AnswerRead] = Future()
        self._waiting[request] = future
        if payload is not None:
            self._payloads[request] = payload
        self.step(make(request))
        if not future.done:
            self.process.bound(future, timeout, f"target {self.target}: no answer")
        try:
            return await future
        finally:
            del self._waiting[request]

    async def wait_readable(self, chunk: bytes, timeout: float) -> None:
        request = next(self._requests)
        self.kernel.probe("read parked")
        try:
            await self._ask(request, lambda number: ev.ReadArrived(number, chunk), None, timeout)
        except FsError as error:
            if error.code is Code.TIMED_OUT:
                self.step(ev.ReadExpired(request))
                self.kernel.probe("parked read expired")
                raise FsError(Code.CHUNK_DIRTY, "an update of the chunk is in flight") from None
            raise

    def _answer(self, request: int, answer: act.Reply | act.AnswerRead) -> None:
        future = self._waiting.get(request)
        if future is not None:
            future.set(answer)

    def _release(self, action: act.Release) -> None:
        self._payloads.pop(action.request, None)

    def _refuse(self, action: act.Refuse) -> None:
        future = self._waiting.get(action.request)
        if future is not None:
            future.fail(FsError(action.code, action.reason))

    def _note_change(self) -> None:
        self.node.ring()

    # The store

    async def _persist(self, action: act.Persist) -> None:
        try:
            payload = self._payloads.get(action.payload, ())
            meta = await self.store.prepare(action, payload)
        except FsError as error:
            self.step(ev.PersistFailed(action.op, error.code, str(error)))
            self.check_store()
            return
        if action.commit:
            self.step(ev.Persisted(action.op, meta.length, meta.checksum))
        else:
            self.step(ev.Persisted(action.op, meta.pending_length, meta.pending_checksum))

    async def _commit(self, action: act.Commit) -> None:
        await self._settle(
            action.op,
            lambda: self.store.commit(action.chunk, action.version, action.chain_version),
        )

    async def _abort(self, action: act.Abort) -> None:
        await self._settle(action.op, lambda: self.store.abort(action.chunk))

    async def _settle(self, op: int, change: Callable[[], Future[None]]) -> None:
        while True:
            try:
                await change()
            except FsError as error:
                if error.code is Code.NO_SPACE:
                    await self.process.sleep(COMMIT_RETRY_SECONDS)
                    continue
                self.step(ev.TargetFailed(str(error)))
            self.step(ev.Committed(op))
            return

    async def _commit_pendings(self, action: act.CommitPendings) -> None:
        after = b""
        try:
            while page := self.store.listing(after, PAGE):
                for listed in page:
                    meta = self.store.meta(listed.chunk)
                    if listed.pending and meta is not None:
                        self.kernel.probe("pending version committed after a restart")
                        await self.store.commit(
                            listed.chunk, meta.pending_version, action.chain_version
                        )
                after = page[-1].chunk
                await self.process.sleep(0.0)
        except FsError as error:
            self.step(ev.TargetFailed(f"pending updates cannot be committed: {error}"))
        else:
            self.step(ev.PendingsCommitted(action.token))

    def check_store(self) -> None:
        if self.store.failure is not None:
            self.step(ev.TargetFailed(self.store.failure))

    def tick(self) -> None:
        self.check_store()
        self.step(ev.Tick())

    # The successor

    def _start_forward(self, action: act.Forward) -> None:
        self._forwards[action.op] = self.process.spawn(self._forward(action))

    def _cancel_forward(self, action: act.CancelForward) -> None:
        task = self._forwards.pop(action.op, None)
        if task is not None:
            task.cancel()

    async def _forward(self, action: act.Forward) -> None:
        await self.process.sleep(action.delay)
        outcome: ev.Event
        try:
            version, checksum = await self._send(action)
        except FsError as error:
            outcome = ev.ForwardFailed(action.op, action.attempt, error.code, str(error))
        else:
            outcome = ev.Acknowledged(action.op, action.attempt, version, checksum)
        self.step(outcome)

    async def _send(self, action: act.Forward) -> tuple[int, int]:
        chain, update = self.standing.chain, action.update
        if chain is None:
            raise FsError(Code.ROUTING_STALE, "the target has left its chain")
        payload = self._payloads.get(action.payload, ())
        if action.whole:
            version, payload = self.store.read(update.chunk, pending=action.pending)
            if version != action.version:
                raise FsError(Code.INTERNAL, f"stored is version {version}, not {action.version}")
            update = replace(update, kind=UpdateKind.REPLACE, offset=0, length=len(payload))
        message = Forwarding(
            chain.chain_id,
            action.chain_version,
            self.target,
            action.version,
            update,
            payload,
            action.tags,
        )
        reply: tuple[int, int] = await self.node.call(
            action.target.node_id, "forward", message, timeout=FORWARD_SECONDS
        )
        return reply

    # Recovery

    def _start_resync(self, action: act.StartResync) -> None:
        from tests.simulation.resync import Resync

        self._stop_resync()
        self._resync = self.process.spawn(Resync(self, action).run())

    def _stop_resync(self) -> None:
        if self._resync is not None:
            self._resync.cancel()
            self._resync = None


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."
