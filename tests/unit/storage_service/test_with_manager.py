"""Storage nodes with the real manager and the real client: what users get when a node dies."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import trio

from chain_replication.manager.service import serve as serve_manager
from fireflyfs.client.cluster import open_cluster
from fireflyfs.client.storage import StorageClient
from fireflyfs.config import ClusterConfig, ManagerConfig, StorageConfig
from fireflyfs.ids import ChainId, InodeId, chunk_id
from fireflyfs.net import server as frames
from fireflyfs.net.credentials import Credentials
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.methods import ClusterRpc
from storage_service.service import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from fireflyfs.client.cluster import Cluster

NAME = "whole-cluster"


@dataclass
class Nodes:
    nursery: trio.Nursery
    base: Path
    config: ClusterConfig
    targets: int = 2
    scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    gone: dict[int, trio.Event] = field(default_factory=dict)

    async def start(self, number: int) -> None:
        config = StorageConfig(
            self.config,
            f"storage-{number}",
            (f"unix://{self.base}/s{number}.sock",),
            str(self.base / f"node{number}"),
            targets=self.targets,
        )
        self.scopes[number], self.gone[number] = trio.CancelScope(), trio.Event()
        await self.nursery.start(self._run, number, config)

    async def _run(
        self, number: int, config: StorageConfig, *, task_status: trio.TaskStatus[Any]
    ) -> None:
        try:
            with self.scopes[number]:
                await serve(config, task_status=task_status)
        finally:
            self.gone[number].set()

    async def kill(self, number: int) -> None:
        self.scopes[number].cancel()
        await self.gone[number].wait()


@asynccontextmanager
async def running(
    base: Path, targets: int = 2
) -> AsyncIterator[tuple[Nodes, Cluster, Sequence[ChainId]]]:
    Credentials.create(base / "secret")
    config = ClusterConfig(
        NAME, str(base / "secret"), f"embedded:{base}/kv", (f"unix://{base}/m.sock",)
    )
    async with trio.open_nursery() as nursery:
        manager = ManagerConfig(config, config.managers, "127.0.0.1:0")
        await nursery.start(partial(serve_manager, manager))
        nodes = Nodes(nursery, base, config, targets)
        for number in (1, 2, 3):
            await nodes.start(number)
        async with open_cluster(config) as cluster:
            reply = await cluster.manager.call(
                ClusterRpc.CREATE_CHAINS,
                pb.CreateChainsRequest(cluster_id=NAME, replicas=3),
                timeout=5,
            )
            yield nodes, cluster, [ChainId(chain) for chain in reply.chain_ids]
        nursery.cancel_scope.cancel()


async def all_serve(cluster: Cluster, count: int, *, after: int = 0) -> None:
    """Wait for a routing in which each chain has ``count`` serving targets, and has changed since
    version ``after``."""

    def done() -> bool:
        chains = cluster.routing.chains.values()
        return all(len(c.serving) == count and c.version > after for c in chains)

    with trio.fail_after(20):
        while not done():
            await cluster.refresh(cluster.routing.version, 1.0)


async def test_a_node_dies_and_returns_under_load(tmp_path: Path) -> None:
    async with running(tmp_path) as (nodes, cluster, chains):
        client = StorageClient(cluster)
        contents: dict[int, bytes] = {}

        async def write(index: int) -> None:
            data = os.urandom(30_000)
            chunk = chunk_id(InodeId(5), index)
            await client.write(chains[index % len(chains)], chunk, 0, memoryview(data))
            contents[index] = data

        async def check() -> None:
            for index, expected in contents.items():
                buffer = bytearray(len(expected))
                chunk = chunk_id(InodeId(5), index)
                chain = chains[index % len(chains)]
                found = await client.read_into(chain, chunk, 0, memoryview(buffer))
                assert (found, bytes(buffer)) == (len(expected), expected), index

        for index in range(10):
            await write(index)
        await client.flush(chains)
        await nodes.kill(2)
        async with trio.open_nursery() as nursery:
            for index in range(5, 25):
                nursery.start_soon(write, index)
        await check()
        await nodes.start(2)
        async with trio.open_nursery() as nursery:
            for index in range(20, 30):
                nursery.start_soon(write, index)
            nursery.start_soon(all_serve, cluster, 3)
        await check()
        await nodes.kill(1)
        await nodes.kill(3)
        await all_serve(cluster, 1)
        await check()
        await write(1)
        await check()


async def test_full_connections_do_not_wait_for_each_other_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three chains that lead around three nodes, and more writes than a connection takes."""
    monkeypatch.setattr(frames, "MAX_REQUESTS", 2)
    async with running(tmp_path, targets=3) as (_, cluster, chains), AsyncExitStack() as stack:
        clients = [
            StorageClient(await stack.enter_async_context(open_cluster(cluster.config)))
            for _ in range(6)
        ]

        async def write(client: StorageClient, chain: ChainId, owner: int) -> None:
            for index in range(4):
                chunk = chunk_id(InodeId(owner), index)
                await client.write(chain, chunk, 0, memoryview(bytes(30_000)))

        async with trio.open_nursery() as nursery:
            for i, (client, chain, _) in enumerate(product(clients, chains, range(3))):
                nursery.start_soon(write, client, chain, i + 10)


async def test_everything_restarts(tmp_path: Path) -> None:
    async with running(tmp_path) as (nodes, cluster, chains):
        client = StorageClient(cluster)
        chunk = chunk_id(InodeId(5), 0)
        await client.write(chains[0], chunk, 0, memoryview(b"kept"))
        for number in (1, 2, 3):
            await nodes.kill(number)
        for number in (1, 2, 3):
            await nodes.start(number)
        buffer = bytearray(4)
        await client.read_into(chains[0], chunk, 0, memoryview(buffer))
        assert buffer == b"kept"
        await all_serve(cluster, 3)
        await client.remove(chains[0], chunk)
        assert await client.query(chains[0], InodeId(5), 0, 10) == ([], True)


@pytest.mark.parametrize("victim", [1, 2, 3])
async def test_an_emptied_disk_does_not_revive_its_chains(tmp_path: Path, victim: int) -> None:
    """All nodes die, one comes back with nothing: the chain goes on from what the others hold."""
    async with running(tmp_path) as (nodes, cluster, chains):
        client = StorageClient(cluster)
        chunk = chunk_id(InodeId(5), 0)
        for chain in chains:
            await client.write(chain, chunk, 0, memoryview(b"kept"))
        for number in (1, 2, 3):
            await nodes.kill(number)
        shutil.rmtree(tmp_path / f"node{victim}")
        for number in sorted((1, 2, 3), key=lambda n: n != victim):
            await nodes.start(number)
        await all_serve(cluster, 3, after=1)
        for number in {1, 2, 3} - {victim}:
            await nodes.kill(number)
        await all_serve(cluster, 1)
        for chain in chains:
            buffer = bytearray(4)
            await client.read_into(chain, chunk, 0, memoryview(buffer))
            assert buffer == b"kept", "what it holds came back by recovery"
