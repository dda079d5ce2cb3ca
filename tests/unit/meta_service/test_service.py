"""A whole metadata server: it joins a manager, is found there, and answers over both carriers."""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.client.cluster import open_cluster
from fireflyfs.client.meta import MetaClient
from fireflyfs.config import ClusterConfig, MetaConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.server import serve as serve_frames
from fireflyfs.rpc import cluster_pb2 as cpb
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.methods import ClusterRpc, MetaRpc
from meta_service.service import serve

if TYPE_CHECKING:
    from pathlib import Path


class Manager:
    """Knows one chain, and every server that calls."""

    def __init__(self) -> None:
        self.beats: dict[str, cpb.HeartbeatRequest] = {}
        self.heard = trio.Event()
        self.deaf = False

    def handlers(self) -> ControlPlane:
        return ControlPlane(
            {
                ClusterRpc.REGISTER: self.register,
                ClusterRpc.HEARTBEAT: self.heartbeat,
                ClusterRpc.GET_ROUTING: self.get_routing,
                ClusterRpc.GET_STATUS: self.get_status,
            }
        )

    async def register(self, request: cpb.RegisterRequest) -> cpb.RegisterReply:
        assert request.role == cpb.META
        return cpb.RegisterReply(node_id=100 + int(request.name[-1]))

    async def heartbeat(self, request: cpb.HeartbeatRequest) -> cpb.HeartbeatReply:
        if self.deaf:
            raise FsError(Code.OVERLOADED, "too busy to hear")
        self.beats[request.name] = request
        self.heard.set()
        return cpb.HeartbeatReply(routing_version=1, lease_seconds=2.5)

    async def get_routing(self, request: cpb.GetRoutingRequest) -> cpb.GetRoutingReply:
        version = 1 + len(self.beats)
        if request.known_version >= version:
            await trio.sleep(0.05)
            return cpb.GetRoutingReply()
        table = cpb.RoutingTable(cluster_id="c", version=version)
        for beat in self.beats.values():
            table.nodes.add(
                node_id=beat.node_id,
                role=cpb.META,
                name=beat.name,
                generation=beat.generation,
                addresses=beat.addresses,
                alive=True,
            )
        target = cpb.ChainTargetInfo(target_id=1 << 16, node_id=1, state=cpb.SERVING)
        table.chains.add(chain_id=1, version=1, targets=[target])
        return cpb.GetRoutingReply(routing=table)

    async def get_status(self, request: cpb.GetStatusRequest) -> cpb.GetStatusReply:
        return cpb.GetStatusReply()


@pytest.fixture
async def manager() -> Manager:
    return Manager()


@pytest.fixture
async def cluster(tmp_path: Path, manager: Manager, nursery: trio.Nursery) -> ClusterConfig:
    secret = tmp_path / "secret"
    secret.write_text(secrets.token_hex(32))
    secret.chmod(0o600)
    (tmp_path / "kv").mkdir()
    where = f"unix://{tmp_path}/m"
    config = ClusterConfig("c", str(secret), f"embedded:{tmp_path}/kv", (where,))
    credentials = Credentials.load("c", secret)
    listen = partial(serve_frames, [Address.parse(where)], credentials)
    await nursery.start(listen, manager.handlers().handle)
    return config


def config_of(cluster: ClusterConfig, tmp_path: Path, number: int) -> MetaConfig:
    listen = (f"unix://{tmp_path}/meta{number}", "tcp://127.0.0.1:0")
    return MetaConfig(cluster, f"meta-{number}", listen, "127.0.0.1:0")


async def test_two_servers_serve_one_namespace(
    cluster: ClusterConfig, manager: Manager, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as first:
        await first.start(partial(serve, config_of(cluster, tmp_path, 1)))
        await nursery.start(partial(serve, config_of(cluster, tmp_path, 2)))
        assert sorted(manager.beats) == ["meta-1", "meta-2"]
        assert [beat.node_id for beat in manager.beats.values()] == [101, 102]
        async with open_cluster(cluster) as joined:
            client = MetaClient(joined)
            root = (await client.call(MetaRpc.GET_ATTR, pb.GetAttrRequest(inode=1))).inode
            assert (root.uid, root.gid) == (os.getuid(), os.getgid())
            create = pb.CreateRequest(parent=1, name=b"f", mode=0o644, exclusive=True)
            made = (await client.call(MetaRpc.CREATE, create)).inode
            assert list(made.layout.chains) == [1]
            report = pb.ReportRequest(inode=made.id, length=9, mtime=5, durable=True)
            assert (await client.call(MetaRpc.REPORT, report)).inode.length == 9
            first.cancel_scope.cancel()
            lookup = pb.LookupRequest(parent=1, name=b"f")
            assert (await client.call(MetaRpc.LOOKUP, lookup)).inode.length == 9
            with pytest.raises(FsError) as caught:
                await client.call(MetaRpc.CREATE, create)
            assert caught.value.code is Code.EXISTS


async def test_a_deaf_manager_does_not_stop_a_server(
    cluster: ClusterConfig, manager: Manager, tmp_path: Path, nursery: trio.Nursery
) -> None:
    manager.deaf = True
    await nursery.start(partial(serve, config_of(cluster, tmp_path, 1)))
    assert manager.beats == {}
    manager.deaf = False
    with trio.fail_after(5):
        await manager.heard.wait()
    assert list(manager.beats) == ["meta-1"]


async def test_a_store_that_is_none(cluster: ClusterConfig, tmp_path: Path) -> None:
    bad = ClusterConfig("c", cluster.secret_file, "lmdb:/x", cluster.managers)
    with pytest.raises(FsError) as caught:
        await serve(config_of(bad, tmp_path, 1))
    assert caught.value.code is Code.CONFIG
