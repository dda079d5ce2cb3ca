"""The manager as it runs, asked over a Unix socket and over gRPC by storage nodes of straw."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from chain_replication.manager.service import serve
from fireflyfs.config import ClusterConfig, ManagerConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import LEASE_SECONDS
from fireflyfs.net.client import Peers
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.messages import Method
from fireflyfs.routing import PublicState, Routing
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.channel import Channel, FramedChannel
from fireflyfs.rpc.convert import routing_from_proto
from fireflyfs.rpc.grpc_channel import GrpcChannel
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from chain_replication.manager.service import Listening

CLUSTER = "straw"


def configure(directory: Path) -> ManagerConfig:
    secret = directory / "secret"
    if not secret.exists():
        Credentials.create(secret)
    listen = (f"unix://{directory}/manager.sock",)
    cluster = ClusterConfig(CLUSTER, str(secret), f"embedded:{directory}/kv", listen)
    return ManagerConfig(cluster, listen, "127.0.0.1:0")


@asynccontextmanager
async def running(config: ManagerConfig) -> AsyncIterator[tuple[Channel, Listening]]:
    credentials = Credentials.load(CLUSTER, config.cluster.secret_file)
    async with trio.open_nursery() as nursery:
        listening: Listening = await nursery.start(serve, config)
        peers = Peers(nursery, credentials)
        yield FramedChannel(peers, config.listen), listening
        await peers.aclose()
        nursery.cancel_scope.cancel()


class Straw:
    """A storage node with nothing in it that does its half of the dance."""

    def __init__(self, channel: Channel, name: str, generation: int) -> None:
        self.channel = channel
        self.name = name
        self.generation = generation
        self.node_id = 0
        self.targets: list[int] = []
        self.synced: dict[int, int] = {}
        self.lease = 0.0
        self.routing = Routing()

    async def register(self) -> None:
        request = pb.RegisterRequest(cluster_id=CLUSTER, role=pb.STORAGE, name=self.name, targets=2)
        reply = await self.channel.call(ClusterRpc.REGISTER, request, timeout=5)
        self.node_id, self.targets = reply.node_id, list(reply.target_ids)

    async def beat(self) -> None:
        self.routing = await fetch(self.channel, 0)
        reports = [self.report(target) for target in self.targets]
        request = pb.HeartbeatRequest(
            cluster_id=CLUSTER,
            node_id=self.node_id,
            generation=self.generation,
            role=pb.STORAGE,
            name=self.name,
            addresses=[f"unix:///run/{self.name}.sock"],
            targets=reports,
        )
        reply = await self.channel.call(ClusterRpc.HEARTBEAT, request, timeout=5)
        self.lease = reply.lease_seconds

    def report(self, target: int) -> pb.TargetReport:
        """A syncing target has caught up by the heartbeat after the one that first said so."""
        state, version = pb.LOCAL_ONLINE, 0
        for chain in self.routing.chains.values():
            for mine in (t for t in chain.targets if t.target_id == target):
                version = chain.version
                if mine.state is PublicState.SERVING or self.synced.get(target) == version:
                    state = pb.LOCAL_UPTODATE
                if mine.state is PublicState.SYNCING:
                    self.synced[target] = version
        return pb.TargetReport(
            target_id=target, state=state, chain_version=version, used_bytes=5, capacity_bytes=9
        )

    async def live(self) -> None:
        while True:
            await self.beat()
            await trio.sleep(0.2)


async def fetch(channel: Channel, known: int, wait: float = 0) -> Routing:
    request = pb.GetRoutingRequest(cluster_id=CLUSTER, known_version=known, wait_seconds=wait)
    reply = await channel.call(ClusterRpc.GET_ROUTING, request, timeout=wait + 5)
    return routing_from_proto(reply.routing)


async def make_nodes(channel: Channel) -> list[Straw]:
    nodes = [Straw(channel, f"s{n}", 100 + n) for n in (1, 2, 3)]
    for node in nodes:
        await node.register()
        await node.beat()
    request = pb.CreateChainsRequest(cluster_id=CLUSTER, replicas=3)
    reply = await channel.call(ClusterRpc.CREATE_CHAINS, request, timeout=5)
    assert list(reply.chain_ids) == [1, 2]
    return nodes


async def status(channel: Channel) -> pb.GetStatusReply:
    request = pb.GetStatusRequest(cluster_id=CLUSTER)
    return await channel.call(ClusterRpc.GET_STATUS, request, timeout=5)


def serving(routing: Routing) -> list[set[int]]:
    return [{int(t.node_id) for t in c.serving} for c in routing.chains.values()]


async def until_serving(channel: Channel, wanted: set[int]) -> Routing:
    routing = await fetch(channel, 0)
    with trio.fail_after(10):
        while any(nodes != wanted for nodes in serving(routing)):
            routing = await fetch(channel, routing.version, 10)
    return routing


async def test_a_node_dies_returns_and_serves_again(tmp_path: Path) -> None:
    async with running(configure(tmp_path)) as (channel, _), trio.open_nursery() as nursery:
        first, second, third = await make_nodes(channel)
        for node in (second, third):
            nursery.start_soon(node.live)
        await until_serving(channel, {1, 2, 3})
        await first.beat()
        assert first.lease == LEASE_SECONDS
        heard = trio.current_time()
        routing = await until_serving(channel, {2, 3})
        assert 2.9 < trio.current_time() - heard < 4
        assert not routing.nodes[next(iter(routing.nodes))].alive
        shown = await status(channel)
        assert "target 65536 SERVING -> OFFLINE: lost" in shown.chains[0].last_change
        assert shown.nodes[0].seconds_since_heartbeat > 2.9
        assert shown.nodes[1].seconds_since_heartbeat < 1
        assert shown.chains[0].targets[0].report.capacity_bytes == 9
        returned = Straw(channel, "s1", 999)
        await returned.register()
        assert returned.node_id == first.node_id
        nursery.start_soon(returned.live)
        await until_serving(channel, {1, 2, 3})
        with pytest.raises(FsError) as raised:
            await first.beat()
        assert raised.value.code is Code.SUPERSEDED
        nursery.cancel_scope.cancel()


async def test_the_manager_restarts_and_nothing_has_changed(tmp_path: Path) -> None:
    config = configure(tmp_path)
    async with running(config) as (channel, _):
        nodes = await make_nodes(channel)
        for node in nodes:
            await node.beat()
        before = await fetch(channel, 0)
    async with running(config) as (channel, _):
        assert await fetch(channel, 0) == before
        for node in nodes:
            node.channel = channel
            await node.beat()
            assert node.lease == LEASE_SECONDS
        assert await fetch(channel, 0) == before


async def test_a_second_manager_takes_over_and_the_first_stops(tmp_path: Path) -> None:
    config = configure(tmp_path)
    elsewhere = replace(config, listen=(f"unix://{tmp_path}/second.sock",))

    async def usurp() -> None:
        async with running(config) as (channel, _):
            await make_nodes(channel)
            async with running(elsewhere) as (second, _):
                assert len((await fetch(second, 0)).chains) == 2
                await trio.sleep(5)

    with pytest.raises(BaseExceptionGroup) as raised:
        await usurp()
    assert raised.group_contains(FsError, match="another cluster manager has taken over")


async def test_a_second_manager_on_the_same_addresses_leaves_the_first_alone(
    tmp_path: Path,
) -> None:
    config = configure(tmp_path)
    async with running(config) as (channel, _):
        with pytest.raises(BaseExceptionGroup) as raised:
            await serve(config)
        assert raised.group_contains(FsError)
        await make_nodes(channel)


async def test_the_same_over_grpc(tmp_path: Path) -> None:
    config = configure(tmp_path)
    credentials = Credentials.load(CLUSTER, config.cluster.secret_file)
    async with (
        running(config) as (_, listening),
        GrpcChannel(f"127.0.0.1:{listening.grpc_port}", credentials) as channel,
    ):
        await make_nodes(channel)
        assert len((await status(channel)).nodes) == 3
        with pytest.raises(FsError) as raised:
            await channel.call(
                ClusterRpc.GET_STATUS, pb.GetStatusRequest(cluster_id="other"), timeout=5
            )
        assert raised.value.code is Code.WRONG_CLUSTER


async def refusal(channel: Channel, rpc: Any, request: Any) -> Code:
    with pytest.raises(FsError) as raised:
        await channel.call(rpc, request, timeout=5)
    return raised.value.code


async def test_hostile_requests_change_nothing(tmp_path: Path) -> None:
    async with running(configure(tmp_path)) as (channel, _):
        await make_nodes(channel)
        before = await fetch(channel, 0)

        def beat(**fields: Any) -> pb.HeartbeatRequest:
            good = {"cluster_id": CLUSTER, "node_id": 1, "generation": 101, "role": pb.STORAGE}
            return pb.HeartbeatRequest(**{**good, "name": "s1", **fields})

        target = pb.TargetReport(target_id=65536, state=pb.LOCAL_UPTODATE)
        huge = pb.TargetReport(target_id=65536, state=pb.LOCAL_ONLINE, used_bytes=(1 << 64) - 1)
        heartbeats = {
            Code.WRONG_CLUSTER: [beat(cluster_id=""), beat(cluster_id="x" * 10_000)],
            Code.NOT_FOUND: [beat(node_id=99), beat(node_id=(1 << 64) - 1)],
            Code.MALFORMED: [
                beat(role=pb.NODE_ROLE_UNSPECIFIED),
                beat(targets=[pb.TargetReport(target_id=65536)]),
            ],
            Code.INVALID: [
                beat(generation=0),
                beat(generation=1 << 63),
                beat(addresses=["tcp://h:1"] * 17),
                beat(addresses=["http://h"]),
                beat(name="s2"),
                beat(targets=[target] * 2),
                beat(targets=[target] * 5000),
                beat(targets=[pb.TargetReport(target_id=2 << 16, state=pb.LOCAL_ONLINE)]),
                beat(targets=[huge]),
            ],
        }
        for code, requests in heartbeats.items():
            for request in requests:
                assert await refusal(channel, ClusterRpc.HEARTBEAT, request) is code, request
        for wait in (-1.0, float("nan")):
            polled = pb.GetRoutingRequest(cluster_id=CLUSTER, wait_seconds=wait)
            assert await refusal(channel, ClusterRpc.GET_ROUTING, polled) is Code.INVALID
        for count in (0, 6, (1 << 32) - 1):
            many = pb.CreateChainsRequest(cluster_id=CLUSTER, replicas=count)
            grown = await channel_create(channel, many)
            assert grown == [], "no target is free"
        absurd = pb.RegisterRequest(
            cluster_id=CLUSTER, role=pb.STORAGE, name="s1", targets=(1 << 32) - 1
        )
        assert await refusal(channel, ClusterRpc.REGISTER, absurd) is Code.INVALID
        assert await fetch(channel, 0) == before


async def channel_create(channel: Channel, request: pb.CreateChainsRequest) -> list[int]:
    reply = await channel.call(ClusterRpc.CREATE_CHAINS, request, timeout=5)
    return list(reply.chain_ids)


async def test_the_data_plane_is_not_served_here(tmp_path: Path) -> None:
    config = configure(tmp_path)
    credentials = Credentials.load(CLUSTER, config.cluster.secret_file)
    async with running(config), trio.open_nursery() as nursery:
        peers = Peers(nursery, credentials)
        await peers.call(config.listen, Method.PING, None, timeout=5)
        with pytest.raises(FsError) as raised:
            await peers.call(config.listen, Method.READ, [], timeout=5)
        assert raised.value.code is Code.UNKNOWN_METHOD
        await peers.aclose()
        nursery.cancel_scope.cancel()
