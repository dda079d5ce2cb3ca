from __future__ import annotations

import random

import pytest
import trio

from fireflyfs.client.file import FileIO
from fireflyfs.client.storage import StorageClient
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, InodeId, chunk_id, chunk_index
from fireflyfs.layout import Layout
from fireflyfs.limits import MAX_FILE_SIZE, MIN_CHUNK_SIZE
from fireflyfs.net.messages import Method
from tests.unit.fireflyfs.client.fakes import FakePeers, cluster, fails, routing

INODE = InodeId(5)
SIZE = MIN_CHUNK_SIZE
LAYOUT = Layout(SIZE, (ChainId(1), ChainId(2), ChainId(3)))


@pytest.fixture
def peers() -> FakePeers:
    return FakePeers()


@pytest.fixture
def file(peers: FakePeers) -> FileIO:
    view = cluster(peers, routing(1, [1, 2, 3], chains=(1, 2, 3)))
    return FileIO(StorageClient(view), INODE, LAYOUT)


async def content(file: FileIO, offset: int, length: int) -> bytes:
    data = bytearray(b"?" * length)
    await file.pread(offset, memoryview(data))
    return bytes(data)


async def test_random_writes_and_cuts_match_a_model(peers: FakePeers, file: FileIO) -> None:
    rng = random.Random(7)
    model = bytearray()
    for _ in range(120):
        if rng.random() < 0.2:
            length = rng.randrange(5 * SIZE)
            if length < len(model):
                await file.truncate(len(model), length)
            model[:] = model[:length].ljust(length, b"\0")
            continue
        offset, data = rng.randrange(4 * SIZE), rng.randbytes(rng.randrange(1, 2 * SIZE))
        await file.pwrite(offset, memoryview(data))
        model.extend(bytes(max(0, offset + len(data) - len(model))))
        model[offset : offset + len(data)] = data
        start = rng.randrange(len(model))
        assert await content(file, start, len(model) - start) == model[start:]


async def test_a_hole_reads_as_zeros(peers: FakePeers, file: FileIO) -> None:
    await file.pwrite(3 * SIZE + 1, memoryview(b"end"))
    assert await content(file, SIZE - 2, 2 * SIZE + 6) == bytes(2 * SIZE + 3) + b"end"
    assert len(peers.chunks) == 1


async def test_a_cut_makes_no_chunks_and_removes_those_beyond(
    peers: FakePeers, file: FileIO
) -> None:
    await file.pwrite(0, memoryview(b"x"))
    await file.pwrite(7 * SIZE, memoryview(b"y" * 10))
    await file.truncate(7 * SIZE + 10, 4 * SIZE + 100)
    assert {chunk_index(chunk) for chunk in peers.chunks} == {0}
    await file.truncate(4 * SIZE + 100, 1000)
    assert peers.chunks[chunk_id(INODE, 0)] == b"x"  # not grown
    await file.truncate(1000, 0)
    assert not peers.chunks


async def test_a_cut_of_nothing_asks_nobody(peers: FakePeers, file: FileIO) -> None:
    await file.truncate(0, 0)
    await file.truncate(2 * SIZE, 2 * SIZE)
    assert not peers.calls
    await file.truncate(10, 0)
    assert peers.calls == [(1, Method.QUERY)]  # one chunk, one chain


async def test_flush_covers_the_chains_written_since_the_last(
    peers: FakePeers, file: FileIO
) -> None:
    await file.pwrite(0, memoryview(bytes(SIZE + 1)))
    peers.failures[1, Method.FLUSH] = [fails(Code.MALFORMED)]
    with pytest.raises(FsError, match="MALFORMED"):
        await file.flush()
    await file.flush()
    assert set(peers.flushed) == {1, 2}
    peers.flushed.clear()
    await file.flush()
    assert not peers.flushed


async def test_a_second_flush_waits_for_the_first(
    peers: FakePeers, file: FileIO, autojump_clock: object
) -> None:
    await file.pwrite(0, memoryview(b"x"))
    peers.silent = {1}
    done: list[str] = []

    async def flush(name: str) -> None:
        await file.flush()
        done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, "first")
        nursery.start_soon(flush, "second")
        await trio.sleep(1)
        assert not done
        peers.silent = set()
    assert peers.flushed == [1]


async def test_limits(file: FileIO) -> None:
    with pytest.raises(FsError) as caught:
        await file.pwrite(MAX_FILE_SIZE, memoryview(b"x"))
    assert caught.value.code is Code.FILE_TOO_LARGE
