"""Any sequence of operations answers as the model does, whatever the store does meanwhile."""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from fireflyfs.kv.memory import Faults, MemoryEngine
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from tests.unit.meta_service.model import ROOT, Model, Node, Refused
from tests.unit.meta_service.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

NAMES = st.sampled_from([b"a", b"b", b"\xff"])
PARENTS = st.integers(0, 9)
"""Mostly a directory that is there, sometimes anything: see ``directory``."""
INODES = st.integers(0, 9)
"""Which of the inodes ever made, counted from the newest."""
ENTRIES = st.integers(0, 19)
"""Mostly an entry that is there: see ``entry``."""
CLIENTS = st.sampled_from([7, 8])
FAULTS = Faults(conflict=0.15, unknown=0.25)
KINDS = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l"}


class Namespace(RuleBasedStateMachine):
    """Two servers take turns; the store loses commits and answers of commits."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        engine = MemoryEngine(random.Random(seed), FAULTS)
        self.servers = [World(engine), World(engine)]
        self.model = Model()
        self.known = [ROOT]
        self.requests = 0
        self.last: tuple[Any, dict[str, Any], Any] | None = None
        self.run(self.servers[0].start)

    def run(self, fn: Callable[[], Awaitable[T]]) -> T:
        return trio.run(fn, clock=MockClock(autojump_threshold=0))

    def pick(self, which: int) -> int:
        return self.known[-1 - which % len(self.known)]

    def directory(self, which: int) -> int:
        if which >= 8:
            return self.pick(which)
        there = [inode for inode in self.known if self.model.is_directory(inode)]
        return there[-1 - which % len(there)]

    def entry(self, which: int) -> tuple[int, bytes]:
        there = self.model.all_entries()
        if which >= 18 or not there:
            return self.pick(which), b"b"
        return there[which % len(there)]

    def ask(self, rpc: Any, client: int = 7, **fields: Any) -> Any:
        """The reply, or the errno's name."""
        self.requests += 1
        world = self.servers[self.requests % 2]
        world.tick()
        fields["caller"] = pb.Caller(client_id=client, request_id=self.requests)
        return self.run(lambda: self._answer(world, rpc, fields))

    async def _answer(self, world: World, rpc: Any, fields: dict[str, Any]) -> Any:
        refusal = await world.fails(rpc, **fields)
        if refusal != "OK":
            return refusal
        reply = await world.call(rpc, **fields)  # the same request again
        self.last = rpc, fields, reply
        return reply

    def compare(self, expect: Callable[[], object], answer: Any) -> bool:
        """Whether both went well; if not, both must have refused alike."""
        refusal = ""
        try:
            expect()
        except Refused as refused:
            refusal = str(refused)
        assert refusal == (answer if isinstance(answer, str) else "")
        return not refusal

    def made(self, parent: int, name: bytes, kind: str, answer: Any) -> None:
        if self.compare(lambda: self.model.check_free(parent, name), answer):
            inode = answer.inode.id
            assert inode not in self.known
            self.known.append(inode)
            self.model.add(parent, name, inode, Node(kind))

    @rule(parent=PARENTS, name=NAMES)
    def mkdir(self, parent: int, name: bytes) -> None:
        at = self.directory(parent)
        self.made(at, name, "d", self.ask(MetaRpc.MKDIR, parent=at, name=name, mode=0o755))

    @rule(parent=PARENTS, name=NAMES)
    def symlink(self, parent: int, name: bytes) -> None:
        at = self.directory(parent)
        self.made(at, name, "l", self.ask(MetaRpc.SYMLINK, parent=at, name=name, target=b"t"))

    @rule(parent=PARENTS, name=NAMES, client=CLIENTS)
    def create(self, parent: int, name: bytes, client: int) -> None:
        at = self.directory(parent)
        answer = self.ask(MetaRpc.CREATE, client, parent=at, name=name, exclusive=True)
        self.made(at, name, "f", answer)
        if not isinstance(answer, str):
            self.model.open(answer.inode.id, client)

    @rule(inode=INODES, parent=PARENTS, name=NAMES)
    def link(self, inode: int, parent: int, name: bytes) -> None:
        what, at = self.pick(inode), self.directory(parent)
        answer = self.ask(MetaRpc.LINK, inode=what, parent=at, name=name)
        self.compare(lambda: self.model.link(what, at, name), answer)

    @rule(which=ENTRIES)
    def unlink(self, which: int) -> None:
        at, name = self.entry(which)
        answer = self.ask(MetaRpc.UNLINK, parent=at, name=name)
        self.compare(lambda: self.model.unlink(at, name), answer)

    @rule(which=ENTRIES)
    def rmdir(self, which: int) -> None:
        at, name = self.entry(which)
        answer = self.ask(MetaRpc.RMDIR, parent=at, name=name)
        self.compare(lambda: self.model.rmdir(at, name), answer)

    @rule(
        parent=PARENTS, name=NAMES, into=PARENTS, to=NAMES, flags=st.sampled_from([0, 0, 0, 1, 2])
    )
    def rename(self, parent: int, name: bytes, into: int, to: bytes, flags: int) -> None:
        at, there = self.directory(parent), self.directory(into)
        answer = self.ask(
            MetaRpc.RENAME, parent=at, name=name, new_parent=there, new_name=to, flags=flags
        )
        self.compare(lambda: self.model.rename(at, name, there, to, flags), answer)

    @rule(which=ENTRIES, onto=ENTRIES, flags=st.sampled_from([0, 2]))
    def rename_onto(self, which: int, onto: int, flags: int) -> None:
        (at, name), (there, to) = self.entry(which), self.entry(onto)
        answer = self.ask(
            MetaRpc.RENAME, parent=at, name=name, new_parent=there, new_name=to, flags=flags
        )
        self.compare(lambda: self.model.rename(at, name, there, to, flags), answer)

    @rule(inode=INODES, client=CLIENTS)
    def open(self, inode: int, client: int) -> None:
        what = self.pick(inode)
        answer = self.ask(MetaRpc.OPEN, client, inode=what)
        self.compare(lambda: self.model.open(what, client), answer)

    @rule(inode=INODES, client=CLIENTS, length=st.integers(0, 5))
    def close(self, inode: int, client: int, length: int) -> None:
        what = self.pick(inode)
        answer = self.ask(MetaRpc.CLOSE, client, inode=what, length=length)
        self.compare(lambda: self.model.close(what, client, length), answer)

    @rule(inode=INODES, length=st.integers(0, 5))
    def truncate(self, inode: int, length: int) -> None:
        what = self.pick(inode)
        answer = self.ask(MetaRpc.SET_ATTR, inode=what, length=length)
        self.compare(lambda: self.model.truncate(what, length), answer)

    @rule(inode=INODES, name=st.sampled_from([b"user.a", b"user.b"]), value=st.binary(max_size=2))
    def set_xattr(self, inode: int, name: bytes, value: bytes) -> None:
        what = self.pick(inode)
        answer = self.ask(MetaRpc.SET_XATTR, inode=what, name=name, value=value)
        if self.compare(lambda: self.model.node(what), answer):
            self.model.node(what).xattrs[name] = value

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat(self) -> None:
        """The answer to a request that was asked before, at the other server."""
        assert self.last is not None
        rpc, fields, reply = self.last
        if rpc is not MetaRpc.OPEN:
            world = self.servers[0]
            assert self.run(lambda: world.call(rpc, **fields)) == reply

    @invariant()
    def looks_the_same(self) -> None:
        if self.requests:
            self.run(self._check_tree)

    async def _check_tree(self) -> None:
        world = self.servers[self.requests % 2]
        for inode in self.known:
            if inode not in self.model.nodes:
                assert await world.fails(MetaRpc.GET_ATTR, inode=inode) == "ESTALE"
                continue
            node, seen = self.model.nodes[inode], await world.stat(inode)
            assert KINDS[stat.S_IFMT(seen.mode)] == node.kind
            assert seen.nlink == self.model.links(inode)
            if node.kind == "f":
                assert seen.length == node.length
            xattrs = (await world.call(MetaRpc.LIST_XATTR, inode=inode)).names
            assert list(xattrs) == sorted(node.xattrs)
            if node.kind == "d":
                listed = (await world.call(MetaRpc.READ_DIR, inode=inode)).entries
                assert {e.name: e.inode.id for e in listed} == node.entries
        assert len(await world.rows(b"I")) == len(self.model.nodes)
        reply = await world.call(MetaRpc.STAT_FS)
        assert reply.inodes == len(self.model.nodes)
        orphans = [n for n in self.model.nodes.values() if n.kind != "d" and not n.nlink]
        assert len(await world.rows(b"O")) == len(orphans)


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(
    max_examples=40,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
