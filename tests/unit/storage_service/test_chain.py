"""Storage nodes as they run: chains that lose and regain nodes, and requests that make no sense."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import KIB, MAX_CHUNK_SIZE
from fireflyfs.net.codec import from_wire
from fireflyfs.net.messages import (
    FlushRequest,
    ForwardRequest,
    ListChunksRequest,
    Method,
    QueryReply,
    QueryRequest,
    ReadItem,
    ReadReply,
    ReadRequest,
    SyncDoneRequest,
    Tag,
    UpdateKind,
    UpdateReply,
)
from fireflyfs.rpc import cluster_pb2 as pb
from storage_service.store import flusher
from storage_service.store.store import ChunkStore
from tests.unit.storage_service.cluster import (
    CHAIN,
    OFFLINE,
    SERVING,
    SYNCING,
    Cluster,
    chunk,
    running,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_write_is_on_every_replica(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        data = os.urandom(100_000)
        reply = await cluster.write(0, 0, data)
        assert (reply.version, reply.length) == (1, len(data))
        reply = await cluster.write(0, 50_000, b"x" * 10)
        assert (reply.version, reply.length) == (2, len(data))
        expected = data[:50_000] + b"x" * 10 + data[50_010:]
        for node in (1, 2, 3):
            assert await cluster.content(node, 0) == expected


async def test_concurrent_writes_and_reads(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        async with trio.open_nursery() as nursery:
            for i in range(40):
                nursery.start_soon(cluster.write, i % 4, i // 4 * 1000, bytes([i]) * 1000)
                nursery.start_soon(cluster.read, i % 3 + 1, i % 4)
        for index in range(4):
            expected = b"".join(bytes([i]) * 1000 for i in range(40) if i % 4 == index)
            for node in (1, 2, 3):
                assert await cluster.content(node, index) == expected


async def test_a_batch_is_one_frame_in_order(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.write(0, 0, b"a" * 200_000)
        await cluster.write(1, 0, b"b" * 10)
        items = [
            ReadItem(CHAIN, chunk(0), 0, 200_000),
            ReadItem(CHAIN, chunk(1), 2, 100),
            ReadItem(77, chunk(1), 0, 1),
            ReadItem(CHAIN, chunk(2), 0, 1),
            ReadItem(CHAIN, chunk(0), 199_999, 5),
        ]
        reply = await cluster.call(1, Method.READ, ReadRequest(items))
        results = from_wire(ReadReply, reply.body).results
        assert [r.length for r in results] == [200_000, 8, 0, 0, 1]
        assert [r.code for r in results] == [0, 0, Code.ROUTING_STALE, 0, 0]
        assert bytes(reply.payload) == b"a" * 200_000 + b"b" * 8 + b"a"


async def test_the_tail_dies_in_the_middle_of_writes(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.write(0, 0, b"before")
        await cluster.kill(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.write, 0, 0, b"during")
            await trio.sleep(0.1)
            cluster.manager.chain((1, SERVING), (2, SERVING), (3, OFFLINE))
        assert await cluster.content(1, 0) == await cluster.content(2, 0) == b"during"


async def test_the_head_dies_and_the_next_one_takes_over(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.write(0, 0, b"before")
        await cluster.kill(1)
        cluster.manager.chain((2, SERVING), (3, SERVING), (1, OFFLINE))
        await cluster.write(0, 0, b"after!")
        assert await cluster.content(2, 0) == await cluster.content(3, 0) == b"after!"


async def test_a_node_returns_and_is_brought_up_to_date_under_writes(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        for index in range(20):
            await cluster.write(index, 0, os.urandom(20_000))
        await cluster.kill(3)
        cluster.manager.chain((1, SERVING), (2, SERVING), (3, OFFLINE))
        for index in range(5):
            await cluster.write(index, 100, b"changed")
        await cluster.remove(19)
        await cluster.write(30, 0, b"new")
        await cluster.start(3)
        cluster.manager.chain((1, SERVING), (2, SERVING), (3, SYNCING))
        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(cluster.write, index % 7, 200, bytes([index]) * 50)
        await cluster.settled(1, 2, 3)
        cluster.manager.chain((1, SERVING), (2, SERVING), (3, SERVING))
        await cluster.settled(1, 2, 3)
        for index in [*range(20), 30]:
            assert await cluster.content(3, index) == await cluster.content(1, index), index
        assert await cluster.content(3, 19) == b""


async def test_a_syncing_node_that_restarts_is_compared_again(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        await cluster.write(0, 0, b"one")
        await cluster.kill(2)
        cluster.manager.chain((1, SERVING), (2, OFFLINE))
        await cluster.write(0, 0, b"two")
        await cluster.start(2)
        cluster.manager.chain((1, SERVING), (2, SYNCING))
        await cluster.settled(2)
        await cluster.kill(2)
        cluster.manager.reports.clear()
        await cluster.start(2)
        await cluster.settled(2)


async def test_all_restart_and_the_last_one_serves_what_it_has(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.write(0, 0, b"kept")
        for node in (1, 2, 3):
            await cluster.kill(node)
        await cluster.start(3)
        cluster.manager.chain((3, SERVING), (1, OFFLINE), (2, OFFLINE))
        await cluster.settled(3)
        assert await cluster.content(3, 0) == b"kept"
        request = cluster.update(0, 0, b"more")
        await cluster.call(3, Method.UPDATE, request, b"more")
        assert await cluster.content(3, 0) == b"more"


async def test_a_repeated_update_is_applied_once(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        request = cluster.update(0, 0, b"first")
        await cluster.call(1, Method.UPDATE, request, b"first")
        await cluster.write(0, 0, b"other")
        reply = await cluster.call(1, Method.UPDATE, request, b"first")
        assert from_wire(UpdateReply, reply.body).version == 1
        assert await cluster.content(1, 0) == b"other"


async def test_reads_end_with_the_lease(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.write(0, 0, b"data")
        cluster.manager.lease = 0.0
        await cluster.until_read(1, 0, Code.LEASE_EXPIRED)
        result, data = await cluster.read(1, 0)
        assert (result.code, data) == (Code.LEASE_EXPIRED, b"")


async def test_flush_query_and_rot(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        data = os.urandom(64 * KIB)
        for index in (0, 1, 5):
            await cluster.write(index, 0, data)
        await cluster.call(1, Method.FLUSH, FlushRequest(CHAIN, cluster.manager.version))
        reply = await cluster.call(2, Method.QUERY, QueryRequest(CHAIN, 7, 1, 10))
        found = from_wire(QueryReply, reply.body)
        assert (found.chunks, found.end) == ([[1, 64 * KIB], [5, 64 * KIB]], True)
        [blocks] = (tmp_path / "node2").glob(f"target-*/blocks/{64 * KIB}.blocks")
        rotten = bytearray(blocks.read_bytes())
        where = rotten.index(data)
        with blocks.open("r+b") as file:
            file.seek(where + 20_000)
            file.write(b"rot")
        results = [(await cluster.read(2, index))[0].code for index in (0, 1, 5)]
        assert sorted(results) == [0, 0, Code.CHECKSUM]
        bad = (0, 1, 5)[results.index(Code.CHECKSUM)]
        await cluster.until_read(2, bad, Code.OK)
        assert await cluster.content(2, bad) == data


async def test_a_target_has_flushed_what_it_was_sent_before_it_may_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[ChunkStore] = []
    flush = ChunkStore.flush

    async def noted(store: ChunkStore) -> None:
        await flush(store)
        flushed.append(store)

    monkeypatch.setattr(flusher, "INTERVAL", math.inf)
    async with running(tmp_path) as cluster:
        await cluster.kill(3)
        cluster.manager.chain((1, SERVING), (2, SERVING), (3, OFFLINE))
        await cluster.write(0, 0, b"flushed before it came")
        await cluster.call(1, Method.FLUSH, FlushRequest(CHAIN, cluster.manager.version))
        monkeypatch.setattr(ChunkStore, "flush", noted)
        await cluster.start(3)
        cluster.manager.chain((1, SERVING), (2, SERVING), (3, SYNCING))
        await cluster.settled(1, 2, 3)
        assert len(flushed) == 1
        await cluster.write(0, 0, b"flushed while it syncs")
        await cluster.call(1, Method.FLUSH, FlushRequest(CHAIN, cluster.manager.version))
        assert len(set(flushed[1:])) == 3
        assert flushed[0] in flushed[1:]
    monkeypatch.undo()


def bad_updates(cluster: Cluster) -> list[tuple[Any, bytes | None, Code]]:
    good = cluster.update(0, 0, b"data")
    version = cluster.manager.version
    return [
        (replace(good, offset=MAX_CHUNK_SIZE), b"data", Code.INVALID),
        (replace(good, length=MAX_CHUNK_SIZE + 1), b"data", Code.INVALID),
        (replace(good, length=3), b"data", Code.INVALID),
        (replace(good, checksums=[]), b"data", Code.INVALID),
        (replace(good, checksums=[1 << 40]), b"data", Code.INVALID),
        (replace(good, checksums=[1]), b"data", Code.CHECKSUM),
        (replace(good, chunk=b"short"), b"data", Code.INVALID),
        (replace(good, kind=9), b"data", Code.INVALID),
        (replace(good, kind=int(UpdateKind.REPLACE)), b"data", Code.INVALID),
        (replace(good, kind=int(UpdateKind.REMOVE)), b"data", Code.INVALID),
        (replace(good, kind=int(UpdateKind.TRUNCATE)), b"data", Code.INVALID),
        (replace(good, chain=99), b"data", Code.ROUTING_STALE),
        (replace(good, chain_version=version + 1), b"data", Code.ROUTING_STALE),
        (replace(good, chain_version=0), b"data", Code.ROUTING_STALE),
    ]


async def test_bad_updates_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        for request, payload, code in bad_updates(cluster):
            with pytest.raises(FsError) as caught:
                await cluster.call(1, Method.UPDATE, request, payload)
            assert caught.value.code is code, request
        with pytest.raises(FsError) as caught:
            await cluster.call(2, Method.UPDATE, cluster.update(0, 0, b"data"), b"data")
        assert caught.value.code is Code.ROUTING_STALE
        assert await cluster.content(1, 0) == await cluster.content(2, 0) == b""
        await cluster.write(0, 0, b"data")


async def test_bad_requests_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        version = cluster.manager.version
        forward = ForwardRequest(
            CHAIN, version, 1 << 16, chunk(0), 1, UpdateKind.TRUNCATE, 0, 5, [], Tag(1, 1), []
        )
        item = ReadItem(CHAIN, chunk(0), 0, 10)
        cases: list[tuple[Method, object, Code]] = [
            (Method.READ, ReadRequest([replace(item, offset=MAX_CHUNK_SIZE)]), Code.INVALID),
            (Method.READ, ReadRequest([replace(item, length=1 << 62)]), Code.INVALID),
            (Method.READ, ReadRequest([replace(item, chunk=b"")]), Code.INVALID),
            (Method.READ, ReadRequest([replace(item, length=MAX_CHUNK_SIZE)] * 9), Code.INVALID),
            (Method.FORWARD, replace(forward, source=5), Code.ROUTING_STALE),
            (Method.FORWARD, replace(forward, version=0), Code.INVALID),
            (Method.FORWARD, replace(forward, tags=[[1, 2]]), Code.INVALID),
            (Method.FORWARD, replace(forward, kind=int(UpdateKind.REPLACE)), Code.INVALID),
            (Method.QUERY, QueryRequest(CHAIN, 7, 0, 0), Code.INVALID),
            (Method.QUERY, QueryRequest(CHAIN, 7, 0, 1 << 40), Code.INVALID),
            (Method.FLUSH, FlushRequest(CHAIN, version + 1), Code.ROUTING_STALE),
            (Method.LIST_CHUNKS, ListChunksRequest(CHAIN, version, b"", 10), Code.ROUTING_STALE),
            (Method.LIST_CHUNKS, ListChunksRequest(CHAIN, version, b"xx", 10), Code.INVALID),
            (Method.SYNC_DONE, SyncDoneRequest(CHAIN, version), Code.ROUTING_STALE),
            (Method.CONTROL, SyncDoneRequest(CHAIN, version), Code.UNKNOWN_METHOD),
            (Method.READ, QueryRequest(CHAIN, 7, 0, 1), Code.MALFORMED),
            (Method.UPDATE, SyncDoneRequest(CHAIN, version), Code.MALFORMED),
        ]
        for method, message, code in cases:
            with pytest.raises(FsError) as caught:
                await cluster.call(2, method, message)
            assert caught.value.code is code, message
        await cluster.write(0, 0, b"still alive")


async def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.kill(1)
        (tmp_path / "node1").rename(tmp_path / "node2")
        with pytest.raises(FsError) as caught:
            await cluster.start(2)
        assert caught.value.code is Code.CONFIG
        assert "belongs to node 'storage-1'" in caught.value.message


async def test_a_target_that_is_taken_out_refuses_reads(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        await cluster.write(0, 0, b"data")
        cluster.manager.chain((1, SERVING), (2, OFFLINE))
        await cluster.settled(2, local=pb.LOCAL_ONLINE)
        assert (await cluster.read(2, 0))[0].code == Code.NOT_SERVING
