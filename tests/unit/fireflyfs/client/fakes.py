"""A cluster without processes: one chain of three replicas whose nodes fail as a test says."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, cast

import trio

from fireflyfs import checksum
from fireflyfs.client.cluster import Cluster
from fireflyfs.config import ClusterConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import (
    ChainId,
    ChainVersion,
    ClientId,
    Generation,
    NodeId,
    TargetId,
    chunk_index,
    chunk_owner,
)
from fireflyfs.net.client import Reply
from fireflyfs.net.codec import decode, encode, from_wire, to_wire
from fireflyfs.net.messages import (
    FlushRequest,
    Method,
    QueryReply,
    QueryRequest,
    ReadReply,
    ReadRequest,
    ReadResult,
    UpdateKind,
    UpdateReply,
    UpdateRequest,
)
from fireflyfs.routing import Chain, ChainTarget, Node, PublicState, Role, Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from fireflyfs.ids import ChunkId
    from fireflyfs.net.client import Peers
    from fireflyfs.rpc.channel import Channel

CONFIG = ClusterConfig("fake", "secret", "memory:", ("unix:///manager",))
CHAIN = ChainId(1)


def node(number: int, role: Role = Role.STORAGE, alive: bool = True) -> Node:
    address = f"unix:///node-{number}"
    return Node(NodeId(number), role, f"node-{number}", Generation(1), (address,), alive)


def routing(
    version: int,
    serving: Sequence[int],
    chains: Sequence[int] = (CHAIN,),
    metas: Sequence[int] = (),
) -> Routing:
    """Storage nodes 1 to 3; ``serving`` of them, in this order, serve every chain."""
    states = [(n, PublicState.SERVING) for n in serving]
    states += [(n, PublicState.OFFLINE) for n in (1, 2, 3) if n not in serving]
    targets = tuple(ChainTarget(TargetId(n << 16), NodeId(n), state) for n, state in states)
    nodes = [node(n) for n in (1, 2, 3)] + [node(n, Role.META) for n in metas]
    return Routing(
        "fake",
        version,
        {n.node_id: n for n in nodes},
        {ChainId(c): Chain(ChainId(c), ChainVersion(version), targets) for c in chains},
    )


def fails(code: Code) -> Callable[[], FsError]:
    return lambda: FsError(code, f"the test says {code.name}")


@dataclasses.dataclass
class FakePeers:
    """Answers as three storage nodes would that hold the same chunks."""

    chunks: dict[ChunkId, bytearray] = dataclasses.field(default_factory=dict)
    versions: dict[int, int] = dataclasses.field(default_factory=lambda: defaultdict(lambda: 1))
    """Chain version that the nodes go by, by chain."""
    failures: dict[tuple[int, Method], list[Callable[[], FsError]]] = dataclasses.field(
        default_factory=lambda: defaultdict(list)
    )
    """Before answering, a node raises the next of these. By (node number, method)."""
    lost_answers: list[FsError] = dataclasses.field(default_factory=list)
    """After executing an update, raise the next of these instead of answering."""
    rotten: set[int] = dataclasses.field(default_factory=set)
    """Nodes that answer reads with a flipped bit."""
    silent: set[int] = dataclasses.field(default_factory=set)
    applied: dict[ChunkId, dict[int, int]] = dataclasses.field(default_factory=dict)
    calls: list[tuple[int, Method]] = dataclasses.field(default_factory=list)
    executed: list[UpdateRequest] = dataclasses.field(default_factory=list)
    flushed: list[int] = dataclasses.field(default_factory=list)

    async def call(
        self,
        addresses: Sequence[str],
        method: Method,
        body: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout: float,
        into: Sequence[memoryview] | None = None,
    ) -> Reply:
        await trio.lowlevel.checkpoint()
        number = int(addresses[0].rpartition("-")[2])
        body = decode(encode(body))
        self.calls.append((number, method))
        if number in self.silent:
            await trio.sleep(timeout)
            raise FsError(Code.TIMED_OUT, f"node {number} is silent")
        if self.failures[number, method]:
            raise self.failures[number, method].pop(0)()
        match method:
            case Method.READ:
                return self._read(number, from_wire(ReadRequest, body), into or [])
            case Method.UPDATE:
                return self._update(from_wire(UpdateRequest, body), payload)
            case Method.QUERY:
                return self._query(from_wire(QueryRequest, body))
            case Method.FLUSH:
                self.flushed.append(from_wire(FlushRequest, body).chain)
                return _reply(None)
            case _:
                raise FsError(Code.UNKNOWN_METHOD, method.name)

    def _read(self, number: int, request: ReadRequest, into: Sequence[memoryview]) -> Reply:
        results, stream = [], b""
        for item in request.items:
            content = self.chunks.get(cast("ChunkId", item.chunk), b"")
            data = bytes(content[item.offset : item.offset + item.length])
            sums = checksum.checksums(item.offset, memoryview(data))
            results.append(ReadResult(0, len(data), 1, sums))
            stream += data
        if number in self.rotten:
            stream = bytes([stream[0] ^ 1]) + stream[1:]
        position = 0
        for buffer in into:
            part = stream[position : position + len(buffer)]
            buffer[: len(part)] = part
            position += len(part)
        return _reply(to_wire(ReadReply(results)), len(stream))

    def _update(self, request: UpdateRequest, payload: Sequence[Buffer]) -> Reply:
        if request.chain_version != self.versions[request.chain]:
            raise FsError(Code.ROUTING_STALE, "the test's chain changed")
        chunk = cast("ChunkId", request.chunk)
        last = self.applied.setdefault(chunk, {})
        if request.tag.sequence > last.get(request.tag.client, 0):
            last[request.tag.client] = request.tag.sequence
            self.executed.append(request)
            self._apply(chunk, request, b"".join(memoryview(p) for p in payload))
        if self.lost_answers:
            raise self.lost_answers.pop(0)
        return _reply(to_wire(UpdateReply(1, len(self.chunks.get(chunk, b"")))))

    def _apply(self, chunk: ChunkId, request: UpdateRequest, data: bytes) -> None:
        assert checksum.first_mismatch(request.offset, memoryview(data), request.checksums) is None
        if request.kind == UpdateKind.REMOVE:
            self.chunks.pop(chunk, None)
            return
        content = self.chunks.setdefault(chunk, bytearray())
        if request.kind == UpdateKind.TRUNCATE:
            content[:] = content[: request.length].ljust(request.length, b"\0")
            return
        end = request.offset + request.length
        content.extend(bytes(max(0, end - len(content))))
        content[request.offset : end] = data

    def _query(self, request: QueryRequest) -> Reply:
        rows = sorted(
            [chunk_index(c), len(data)]
            for c, data in self.chunks.items()
            if chunk_owner(c) == request.owner and chunk_index(c) >= request.first_index
        )
        page = rows[: request.limit]
        return _reply(to_wire(QueryReply(page, len(page) == len(rows))))


def _reply(body: object, received: int = 0) -> Reply:
    return Reply(body, memoryview(b""), received)


_clients = itertools.count(77)


def cluster(peers: FakePeers, table: Routing | None = None) -> Cluster:
    client = ClientId(next(_clients))
    made = Cluster(CONFIG, cast("Peers", peers), cast("Channel", None), client)
    made.adopt(table or routing(1, [1, 2, 3]))
    return made
