from __future__ import annotations

import pytest
import trio

from fireflyfs.client.attempts import DEADLINE
from fireflyfs.client.reading import Range
from fireflyfs.client.storage import StorageClient
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId, chunk_id
from fireflyfs.net.messages import Method
from tests.unit.fireflyfs.client.fakes import CHAIN, FakePeers, cluster, fails, routing

CHUNK = chunk_id(InodeId(9), 0)


@pytest.fixture
def peers() -> FakePeers:
    return FakePeers()


async def read(storage: StorageClient, offset: int, size: int) -> bytes:
    buffer = bytearray(b"?" * size)
    found = await storage.read_into(CHAIN, CHUNK, offset, memoryview(buffer))
    assert not any(buffer[found:])
    return bytes(buffer)


async def test_what_was_written_is_read(peers: FakePeers) -> None:
    storage = StorageClient(cluster(peers))
    await storage.write(CHAIN, CHUNK, 5, memoryview(b"hello"))
    assert await read(storage, 4, 5) == b"\0hell"


async def test_what_a_chunk_lacks_becomes_zeros(peers: FakePeers) -> None:
    storage = StorageClient(cluster(peers))
    assert await read(storage, 0, 4) == bytes(4)
    peers.chunks[CHUNK] = bytearray(b"ab")
    assert await read(storage, 1, 3) == b"b\0\0"


async def test_updates_go_to_the_head(peers: FakePeers) -> None:
    storage = StorageClient(cluster(peers, routing(1, [2, 3])))
    await storage.write(CHAIN, CHUNK, 0, memoryview(b"x"))
    await storage.flush([CHAIN])
    assert peers.calls == [(2, Method.UPDATE), (2, Method.FLUSH)]


@pytest.mark.parametrize("bad", [1, 2, 3])
async def test_rot_on_one_replica_is_not_returned(peers: FakePeers, bad: int) -> None:
    peers.chunks[CHUNK] = bytearray(b"right")
    peers.rotten = {bad}
    assert await read(StorageClient(cluster(peers)), 0, 5) == b"right"


async def test_rot_everywhere_is_an_error(peers: FakePeers, autojump_clock: object) -> None:
    peers.chunks[CHUNK] = bytearray(b"right")
    peers.rotten = {1, 2, 3}
    with pytest.raises(FsError, match=r"gave up after 30 s .*wrong bytes") as caught:
        await read(StorageClient(cluster(peers)), 0, 5)
    assert caught.value.code is Code.CHECKSUM


@pytest.mark.parametrize(
    "code", [Code.UNREACHABLE, Code.NOT_SERVING, Code.LEASE_EXPIRED, Code.TARGET_FAILED]
)
async def test_another_replica_answers_a_read(peers: FakePeers, code: Code) -> None:
    peers.chunks[CHUNK] = bytearray(b"right")
    for node in (1, 2):
        peers.failures[node, Method.READ] = [fails(code)]
    assert await read(StorageClient(cluster(peers)), 0, 5) == b"right"
    assert len(peers.calls) <= 3


async def test_a_silent_replica_costs_two_seconds(
    peers: FakePeers, autojump_clock: trio.abc.Clock
) -> None:
    peers.chunks[CHUNK] = bytearray(b"right")
    peers.silent = {1, 2}
    start = trio.current_time()
    assert await read(StorageClient(cluster(peers)), 0, 5) == b"right"
    assert trio.current_time() - start <= 4.1


async def test_a_dirty_chunk_is_asked_of_the_tail_next(peers: FakePeers) -> None:
    peers.chunks[CHUNK] = bytearray(b"right")
    for node in (1, 2):
        peers.failures[node, Method.READ] = [fails(Code.CHUNK_DIRTY)]
    await read(StorageClient(cluster(peers)), 0, 5)
    assert peers.calls[-1] == (3, Method.READ)
    assert len(peers.calls) <= 2


async def test_a_final_error_is_not_retried(peers: FakePeers) -> None:
    peers.failures[1, Method.UPDATE] = [fails(Code.NO_SPACE)]
    with pytest.raises(FsError, match="NO_SPACE"):
        await StorageClient(cluster(peers)).write(CHAIN, CHUNK, 0, memoryview(b"x"))
    assert len(peers.calls) == 1


@pytest.mark.parametrize("code", [Code.UNREACHABLE, Code.TIMED_OUT])
async def test_a_repeated_update_is_executed_once(
    peers: FakePeers, code: Code, autojump_clock: object
) -> None:
    storage = StorageClient(cluster(peers))
    peers.lost_answers = [FsError(code, "lost"), FsError(code, "lost")]
    await storage.write(CHAIN, CHUNK, 0, memoryview(b"x"))
    await storage.write(CHAIN, CHUNK, 1, memoryview(b"y"))
    assert peers.chunks[CHUNK] == b"xy"
    assert len(peers.executed) == 2
    assert peers.calls.count((1, Method.UPDATE)) == 4


async def test_an_update_follows_the_chain(peers: FakePeers, autojump_clock: object) -> None:
    view = cluster(peers)
    peers.versions[CHAIN] = 2
    peers.silent = {1}

    async def change() -> None:
        await trio.sleep(3)
        view.adopt(routing(2, [2, 3]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await StorageClient(view).write(CHAIN, CHUNK, 0, memoryview(b"x"))
    assert peers.chunks[CHUNK] == b"x"
    assert peers.calls[-1] == (2, Method.UPDATE)


async def test_new_routing_ends_the_pause(peers: FakePeers, autojump_clock: object) -> None:
    view = cluster(peers, routing(1, []))

    async def change() -> None:
        await trio.sleep(7)
        view.adopt(routing(2, [3]))

    peers.versions[CHAIN] = 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        start = trio.current_time()
        await StorageClient(view).write(CHAIN, CHUNK, 0, memoryview(b"x"))
        assert trio.current_time() - start == pytest.approx(7, abs=0.01)


async def test_a_chain_without_replicas_says_so_in_time(
    peers: FakePeers, autojump_clock: object
) -> None:
    storage = StorageClient(cluster(peers, routing(1, [])))
    start = trio.current_time()
    with pytest.raises(FsError, match="no replica of chain 1 serves") as caught:
        await storage.write(CHAIN, CHUNK, 0, memoryview(b"x"))
    assert caught.value.code is Code.CHAIN_UNAVAILABLE
    assert trio.current_time() - start == pytest.approx(DEADLINE, abs=0.1)
    with pytest.raises(FsError, match="offline"):
        await read(storage, 0, 1)


async def test_updates_of_one_chunk_take_turns(peers: FakePeers, autojump_clock: object) -> None:
    storage = StorageClient(cluster(peers))
    peers.lost_answers = [FsError(Code.TIMED_OUT, "lost")] * 5

    async def write(position: int) -> None:
        await storage.write(CHAIN, CHUNK, position, memoryview(b"z"))

    async with trio.open_nursery() as nursery:
        for position in range(10):
            nursery.start_soon(write, position)
    assert peers.chunks[CHUNK] == b"z" * 10
    sequences = [request.tag.sequence for request in peers.executed]
    assert sequences == sorted(sequences)
    assert len(sequences) == 10


async def test_a_batch_survives_short_chunks_and_failures(peers: FakePeers) -> None:
    chunks = [chunk_id(InodeId(9), index) for index in range(20)]
    for index, chunk in enumerate(chunks):
        peers.chunks[chunk] = bytearray([index + 1]) * (index % 5)
    peers.rotten = {1}
    peers.failures[2, Method.READ] = [fails(Code.UNREACHABLE)]
    buffers = [bytearray(b"?" * 4) for _ in chunks]
    ranges = [Range(CHAIN, c, 0, memoryview(b)) for c, b in zip(chunks, buffers, strict=True)]
    found = await StorageClient(cluster(peers)).read_batch(ranges)
    assert found == [index % 5 for index in range(20)]
    for index, buffer in enumerate(buffers):
        assert buffer == (bytes([index + 1]) * (index % 5)).ljust(4, b"\0")
