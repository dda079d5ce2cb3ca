"""Three real replicas over a fake store and a network that delays, drops, repeats and reorders."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.replica import Replica
from chain_replication.resync import Listed, compare
from chain_replication.versions import ChunkMeta
from fireflyfs.errors import Code
from fireflyfs.ids import ChainId, ChainVersion, NodeId, TargetId
from fireflyfs.routing import Chain, ChainTarget, LocalState, PublicState
from fireflyfs.updates import UpdateKind

Content = tuple[int, ...]
"""A chunk's content stands for itself: the sequence of the writes that it has taken."""


@dataclass
class Stored:
    meta: ChunkMeta
    content: Content = ()
    pending: Content = ()


class FakeStore:
    def __init__(self) -> None:
        self.chunks: dict[bytes, Stored] = {}
        self.full = False
        self.room = True

    def has_room(self, size: int) -> bool:
        return self.room

    def meta(self, chunk: bytes) -> ChunkMeta | None:
        stored = self.chunks.get(chunk)
        return None if stored is None else stored.meta

    def persist(self, action: act.Persist, content: Content) -> None:
        old = self.chunks.get(action.update.chunk)
        base = old.content if old is not None else ()
        whole = action.update.kind is UpdateKind.REPLACE
        new = content if whole else (*base, *content)
        removes = action.update.kind is UpdateKind.REMOVE
        meta = old.meta if old is not None else ChunkMeta(0, 0, 0, 0)
        if action.commit and removes:
            self.chunks.pop(action.update.chunk, None)
        elif action.commit:
            meta = ChunkMeta(
                action.version, len(new), hash(new), action.chain_version, tags=action.tags
            )
            self.chunks[action.update.chunk] = Stored(meta, new)
        else:
            meta = replace(
                meta,
                pending_version=action.version,
                pending_length=len(new),
                pending_checksum=hash(new),
                pending_removed=removes,
                tags=action.tags,
            )
            self.chunks[action.update.chunk] = Stored(meta, base, () if removes else new)

    def commit(self, chunk: bytes, chain_version: int) -> None:
        stored = self.chunks.get(chunk)
        if stored is None or not stored.meta.pending_version:
            return
        old = stored.meta
        if old.pending_removed:
            del self.chunks[chunk]
            return
        meta = ChunkMeta(
            old.pending_version,
            old.pending_length,
            old.pending_checksum,
            chain_version,
            tags=old.tags,
        )
        self.chunks[chunk] = Stored(meta, stored.pending)

    def abort(self, chunk: bytes) -> None:
        stored = self.chunks[chunk]
        if not stored.meta.version:
            del self.chunks[chunk]
            return
        number = stored.meta.pending_version
        meta = replace(
            stored.meta,
            pending_version=0,
            tags=tuple(t for t in stored.meta.tags if t.version != number),
        )
        self.chunks[chunk] = Stored(meta, stored.content)

    def listing(self) -> list[Listed]:
        return [
            Listed(c, s.meta.version, s.meta.checksum, s.meta.length, bool(s.meta.pending_version))
            for c, s in sorted(self.chunks.items())
        ]


@dataclass
class Node:
    target: TargetId
    store: FakeStore = field(default_factory=FakeStore)
    replica: Replica = field(init=False)
    payloads: dict[int, Content] = field(default_factory=dict)
    alive: bool = True

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """What a new process finds: the store, and nothing else."""
        self.replica = Replica(self.target, self.store)
        self.payloads.clear()
        self.alive = True


class World:
    def __init__(self, seed: int = 0, *, faults: bool = False, size: int = 3) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.now = 0.0
        self.nodes = {TargetId(i): Node(TargetId(i)) for i in range(1, size + 1)}
        self.answers: dict[int, act.Reply | act.Refuse] = {}
        self.reads: dict[int, Content] = {}
        self.read_of: dict[int, bytes] = {}
        self.acknowledged: dict[bytes, list[int]] = {}
        self.todo: list[tuple[Node, Replica, act.Action]] = []
        self.routes: dict[int, tuple[Node, Replica, act.Forward]] = {}
        self.drawn = 0
        self.version = 0
        self.resyncs: list[tuple[Node, act.StartResync]] = []
        self.chain(*[PublicState.SERVING] * size)
        self.run()

    # The manager

    def chain(self, *states: PublicState, order: tuple[int, ...] = ()) -> Chain:
        self.version += 1
        targets = order or tuple(range(1, len(states) + 1))
        chain = Chain(
            ChainId(1),
            ChainVersion(self.version),
            tuple(
                ChainTarget(TargetId(t), NodeId(t), s) for t, s in zip(targets, states, strict=True)
            ),
        )
        for node in self.nodes.values():
            if node.alive:
                self.feed(node, ev.RoutingChanged(chain))
        return chain

    # Requests

    def draw(self) -> int:
        self.drawn += 1
        return self.drawn

    def update(
        self,
        target: int,
        chunk: bytes,
        value: int,
        *,
        kind: UpdateKind = UpdateKind.WRITE,
        client: int = 7,
    ) -> int:
        """A client's update; ``value`` is also the sequence of its tag."""
        node, request = self.nodes[TargetId(target)], self.draw()
        node.payloads[request] = () if kind is UpdateKind.REMOVE else (value,)
        update = ev.Update(chunk, kind, 0, 1, (), client, value)
        self.feed(node, ev.ClientUpdate(request, self.version, update))
        return request

    def read(self, target: int, chunk: bytes) -> int:
        node, request = self.nodes[TargetId(target)], self.draw()
        self.read_of[request] = chunk
        self.feed(node, ev.ReadArrived(request, chunk))
        return request

    # Machinery

    def feed(self, node: Node, event: ev.Event) -> None:
        self.now += 0.001
        for action in node.replica.step(event, self.now):
            if isinstance(action, act.AnswerRead):
                self._answer_read(node, action)
            elif isinstance(action, act.Reply | act.Refuse):
                self._answer(action)
            elif isinstance(action, act.Release):
                node.payloads.pop(action.request)
            elif isinstance(action, act.StartResync):
                self.resyncs.append((node, action))
            else:
                self.todo.append((node, node.replica, action))

    def _answer_read(self, node: Node, action: act.AnswerRead) -> None:
        stored = node.store.chunks.get(self.read_of[action.request])
        self.reads[action.request] = () if stored is None else stored.content

    def _answer(self, action: act.Reply | act.Refuse) -> None:
        """To a client; or to a predecessor, over the network."""
        self.answers.setdefault(action.request, action)
        route = self.routes.get(action.request)
        if route is None:
            return
        node, replica, forward = route
        if node.replica is not replica:
            return
        if self.faults and self.random.random() < 0.1:
            self._fail(node, forward)
        elif isinstance(action, act.Reply):
            self.feed(
                node,
                ev.Acknowledged(forward.op, forward.attempt, action.version, action.checksum),
            )
        else:
            event = ev.ForwardFailed(forward.op, forward.attempt, action.code, action.reason)
            self.feed(node, event)

    def run(self, limit: int = 20000) -> None:
        """Until nothing is left to do; storing in order, the network in any."""
        for _ in range(limit):
            if not self.todo:
                return
            self.one()
        raise AssertionError("the world does not come to rest")

    def one(self) -> None:
        index = self._pick()
        node, replica, action = self.todo.pop(index)
        if node.replica is not replica or not node.alive:
            return
        if isinstance(action, act.Forward):
            self._send(node, action)
        elif isinstance(action, act.CancelForward):
            pass  # as if it came too late: the attempt goes on and its outcome must not matter
        else:
            self._store(node, action)

    def _pick(self) -> int:
        """The store of each node is a queue; so its first action, or any forward."""
        ready: list[int] = []
        busy: set[TargetId] = set()
        for i, (node, _, action) in enumerate(self.todo):
            if isinstance(action, act.Forward):
                ready.append(i)
            elif node.target not in busy:
                busy.add(node.target)
                ready.append(i)
        return self.random.choice(ready)

    def _store(self, node: Node, action: act.Action) -> None:
        if isinstance(action, act.Persist):
            if node.store.full:
                self.feed(node, ev.PersistFailed(action.op, Code.NO_SPACE, "full"))
                return
            node.store.persist(action, node.payloads.get(action.payload, ()))
            stored = node.store.chunks.get(action.update.chunk)
            meta = stored.meta if stored is not None else ChunkMeta(0, 0, 0, 0)
            length, checksum = (
                (meta.length, meta.checksum)
                if action.commit
                else (meta.pending_length, meta.pending_checksum)
            )
            self.feed(node, ev.Persisted(action.op, length, checksum))
        elif isinstance(action, act.Commit):
            node.store.commit(action.chunk, action.chain_version)
            self.feed(node, ev.Committed(action.op))
        elif isinstance(action, act.Abort):
            node.store.abort(action.chunk)
            self.feed(node, ev.Committed(action.op))
        elif isinstance(action, act.CommitPendings):
            for chunk in list(node.store.chunks):
                node.store.commit(chunk, action.chain_version)
            self.feed(node, ev.PendingsCommitted(action.token))

    def _fail(self, node: Node, forward: act.Forward) -> None:
        failure = ev.ForwardFailed(forward.op, forward.attempt, Code.UNREACHABLE, "lost")
        self.feed(node, failure)

    def _send(self, node: Node, forward: act.Forward) -> None:
        far = self.nodes[forward.target.target_id]
        if not far.alive:
            return  # until the chain changes: the bound of a real attempt is not of interest here
        if self.faults and self.random.random() < 0.1:
            self._fail(node, forward)
            return
        copies = 2 if self.faults and self.random.random() < 0.1 else 1
        for _ in range(copies):
            self._arrive(node, far, forward)

    def _arrive(self, node: Node, far: Node, forward: act.Forward) -> None:
        request, update = self.draw(), forward.update
        content = node.payloads.get(forward.payload, ())
        if forward.whole:
            stored = node.store.chunks[update.chunk]
            content = stored.pending if forward.pending else stored.content
            update = replace(update, kind=UpdateKind.REPLACE)
        far.payloads[request] = content
        self.routes[request] = (node, node.replica, forward)
        event = ev.Forwarded(
            request, forward.chain_version, node.target, forward.version, update, forward.tags
        )
        self.feed(far, event)

    # Recovery

    def resync(self) -> None:
        """Run the newest resync to its end, with whatever else is going on."""
        node, start = self.resyncs[-1]
        far = self.nodes[start.target.target_id]
        self.call(node, ev.SyncBarrier(self.draw(), start.chain_version))
        self.call(far, ev.SyncBegan(self.draw(), start.chain_version))
        plan = compare(node.store.listing(), True, far.store.listing(), True)
        for chunk in [*plan.removals, *plan.copies]:
            self.call(node, ev.SyncChunk(self.draw(), start.chain_version, chunk))
        self.call(far, ev.SyncDone(self.draw(), start.chain_version))

    def call(
        self, node: Node, event: ev.SyncBarrier | ev.SyncBegan | ev.SyncChunk | ev.SyncDone
    ) -> None:
        self.feed(node, event)
        while event.request not in self.answers:
            assert self.todo, f"{event} is not answered"
            self.one()
        answer = self.answers[event.request]
        assert isinstance(answer, act.Reply), answer

    # What must hold

    def content(self, target: int, chunk: bytes) -> Content:
        stored = self.nodes[TargetId(target)].store.chunks.get(chunk)
        return () if stored is None else stored.content

    def local(self, target: int) -> LocalState:
        return self.nodes[TargetId(target)].replica.standing.local

    def check_equal(self, *targets: int) -> None:
        first = self.nodes[TargetId(targets[0])].store
        for target in targets[1:]:
            other = self.nodes[TargetId(target)].store
            assert [c[:4] for c in _brief(first)] == [c[:4] for c in _brief(other)]


def _brief(store: FakeStore) -> list[tuple[bytes, int, Content, bool]]:
    return [
        (c, s.meta.version, s.content, bool(s.meta.pending_version))
        for c, s in sorted(store.chunks.items())
    ]
