"""Three storage services in one process, over Unix sockets, and a manager that tests command."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

from fireflyfs.checksum import checksums
from fireflyfs.config import ClusterConfig, StorageConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChainVersion, Generation, InodeId, NodeId, chunk_id, target_id
from fireflyfs.net import server as frames
from fireflyfs.net.address import Address
from fireflyfs.net.client import Peers, Reply
from fireflyfs.net.codec import from_wire, to_wire
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.messages import (
    Method,
    ReadItem,
    ReadReply,
    ReadRequest,
    ReadResult,
    Tag,
    UpdateKind,
    UpdateReply,
    UpdateRequest,
)
from fireflyfs.routing import Chain, ChainTarget, Node, PublicState, Role, Routing
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.convert import routing_to_proto
from fireflyfs.rpc.methods import ClusterRpc
from storage_service.service import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CLUSTER = "test-cluster"
CHAIN = ChainId(1)
SERVING, SYNCING, OFFLINE = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE


def chunk(index: int) -> bytes:
    return chunk_id(InodeId(7), index)


class FakeManager:
    """Registers, hears heartbeats, and publishes what the test says."""

    def __init__(self) -> None:
        self.routing = Routing(CLUSTER)
        self.changed = trio.Event()
        self.reports: dict[int, pb.TargetReport] = {}
        self.lease = 2.5
        self.version = 0

    def control(self) -> ControlPlane:
        return ControlPlane(
            {
                ClusterRpc.REGISTER: self.register,
                ClusterRpc.HEARTBEAT: self.heartbeat,
                ClusterRpc.GET_ROUTING: self.get_routing,
            }
        )

    async def register(self, request: pb.RegisterRequest) -> pb.RegisterReply:
        await trio.lowlevel.checkpoint()
        node = NodeId(int(request.name.rpartition("-")[2]))
        return pb.RegisterReply(
            node_id=node, target_ids=[target_id(node, slot) for slot in range(request.targets)]
        )

    async def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        await trio.lowlevel.checkpoint()
        self.reports.update((report.target_id, report) for report in request.targets)
        node = Node(
            NodeId(request.node_id),
            Role.STORAGE,
            request.name,
            Generation(request.generation),
            tuple(request.addresses),
            True,
        )
        if self.routing.nodes.get(node.node_id) != node:
            self.publish({**self.routing.nodes, node.node_id: node}, dict(self.routing.chains))
        return pb.HeartbeatReply(routing_version=self.routing.version, lease_seconds=self.lease)

    async def get_routing(self, request: pb.GetRoutingRequest) -> pb.GetRoutingReply:
        while self.routing.version <= request.known_version:
            await self.changed.wait()
        return pb.GetRoutingReply(routing=routing_to_proto(self.routing))

    def publish(self, nodes: dict[NodeId, Node], chains: dict[ChainId, Chain]) -> None:
        self.routing = Routing(CLUSTER, self.routing.version + 1, nodes, chains)
        self.changed.set()
        self.changed = trio.Event()

    def chain(self, *states: tuple[int, PublicState]) -> None:
        """(node, state) in chain order."""
        self.version += 1
        targets = tuple(
            ChainTarget(target_id(NodeId(node), 0), NodeId(node), state) for node, state in states
        )
        chain = Chain(CHAIN, ChainVersion(self.version), targets)
        self.publish(dict(self.routing.nodes), {CHAIN: chain})

    def state(self, node: int) -> tuple[int, int]:
        """(local state, chain version) as last reported."""
        report = self.reports.get(target_id(NodeId(node), 0))
        return (0, 0) if report is None else (report.state, report.chain_version)


@dataclass
class Cluster:
    nursery: trio.Nursery
    base: Path
    manager: FakeManager
    peers: Peers
    scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    gone: dict[int, trio.Event] = field(default_factory=dict)
    clients: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    """Each update is another client's, so that they may overlap."""

    def config(self, number: int) -> StorageConfig:
        cluster = ClusterConfig(
            CLUSTER, str(self.base / "secret"), "memory:", (f"unix://{self.base}/m.sock",)
        )
        return StorageConfig(
            cluster,
            f"storage-{number}",
            (f"unix://{self.base}/s{number}.sock",),
            str(self.base / f"node{number}"),
            targets=1,
        )

    async def start(self, number: int) -> None:
        self.scopes[number] = trio.CancelScope()
        self.gone[number] = trio.Event()
        await self.nursery.start(self._run, number)

    async def _run(self, number: int, *, task_status: trio.TaskStatus[Any]) -> None:
        try:
            with self.scopes[number]:
                await serve(self.config(number), task_status=task_status)
        finally:
            self.gone[number].set()

    async def kill(self, number: int) -> None:
        self.scopes[number].cancel()
        await self.gone[number].wait()

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - over many kinds of conditions
                await trio.sleep(0.01)

    async def settled(self, *nodes: int, local: int = pb.LOCAL_UPTODATE) -> None:
        """These nodes have heard of the present chain and are up to date."""
        wanted = (local, self.manager.version)
        await self.until(lambda: all(self.manager.state(node) == wanted for node in nodes))

    async def call(
        self, node: int, method: Method, message: object, payload: bytes | None = None
    ) -> Reply:
        return await self.peers.call(
            (f"unix://{self.base}/s{node}.sock",),
            method,
            to_wire(message),
            () if payload is None else (payload,),
            timeout=10,
        )

    def update(self, index: int, offset: int, data: bytes) -> UpdateRequest:
        sums = checksums(offset, memoryview(data))
        return UpdateRequest(
            CHAIN,
            self.manager.version,
            chunk(index),
            UpdateKind.WRITE,
            offset,
            len(data),
            sums,
            Tag(next(self.clients), 1),
        )

    async def write(self, index: int, offset: int, data: bytes) -> UpdateReply:
        """As a client does: repeated at the head until it works."""
        request = self.update(index, offset, data)
        with trio.fail_after(20):
            while True:
                routing = self.manager.routing
                chain = routing.chains[CHAIN]
                assert chain.head is not None
                request = replace(request, chain_version=chain.version)
                try:
                    reply = await self.call(chain.head.node_id, Method.UPDATE, request, data)
                except FsError as error:
                    if not error.retry:
                        raise
                    await trio.sleep(0.02)
                else:
                    return from_wire(UpdateReply, reply.body)

    async def remove(self, index: int) -> UpdateReply:
        request = replace(
            self.update(index, 0, b""), kind=int(UpdateKind.REMOVE), checksums=[], length=0
        )
        head = self.manager.routing.chains[CHAIN].head
        assert head is not None
        reply = await self.call(head.node_id, Method.UPDATE, request)
        return from_wire(UpdateReply, reply.body)

    async def read(
        self, node: int, index: int, offset: int = 0, length: int = 1 << 20
    ) -> tuple[ReadResult, bytes]:
        items = [ReadItem(CHAIN, chunk(index), offset, length)]
        reply = await self.call(node, Method.READ, ReadRequest(items))
        [result] = from_wire(ReadReply, reply.body).results
        return result, bytes(reply.payload)

    async def until_read(self, node: int, index: int, code: Code) -> None:
        with trio.fail_after(10):
            while (await self.read(node, index))[0].code != code:  # noqa: ASYNC110 - no event here
                await trio.sleep(0.02)

    async def content(self, node: int, index: int) -> bytes:
        result, data = await self.read(node, index)
        assert result.code == Code.OK, result.message
        assert result.checksums == checksums(0, memoryview(data))
        return data


@asynccontextmanager
async def running(base: Path, nodes: int = 3) -> AsyncIterator[Cluster]:
    """A manager and ``nodes`` storage nodes with one chain over them, all serving."""
    Credentials.create(base / "secret")
    credentials = Credentials.load(CLUSTER, str(base / "secret"))
    async with trio.open_nursery() as nursery:
        manager = FakeManager()
        listen = [Address.parse(f"unix://{base}/m.sock")]
        handler = manager.control().handle
        await nursery.start(frames.serve, listen, credentials, handler)
        cluster = Cluster(nursery, base, manager, Peers(nursery, credentials))
        for number in range(1, nodes + 1):
            await cluster.start(number)
        manager.chain(*((number, SERVING) for number in range(1, nodes + 1)))
        await cluster.settled(*range(1, nodes + 1))
        yield cluster
        for number in cluster.scopes:
            await cluster.kill(number)
        nursery.cancel_scope.cancel()
