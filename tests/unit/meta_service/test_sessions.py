"""Open files: orphans, silent clients, settled lengths, garbage."""

from __future__ import annotations

import pytest
import trio

from fireflyfs.ids import Generation, InodeId, chunk_id
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from meta_service import background, lease
from meta_service.gc import Collector
from meta_service.operation import RESULT_SECONDS, sweep_results
from meta_service.sessions import EXPIRED_SECONDS, REFRESH_SECONDS, prune
from tests.unit.meta_service.world import CHUNK, ROOT, FakeStorage, World, client


@pytest.fixture
async def world() -> World:
    return await World().start()


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def fill(storage: FakeStorage, inode: pb.Inode, length: int) -> None:
    for index in range(-(-length // CHUNK)):
        chain = inode.layout.chains[index % len(inode.layout.chains)]
        size = min(CHUNK, length - index * CHUNK)
        storage.put(chain, chunk_id(InodeId(inode.id), index), size)


async def test_unlinked_while_open(world: World) -> None:
    f = await world.create(b"f")
    gone = await world.unlink(b"f")
    assert gone.nlink == 0
    assert (await world.stat(f.id)).nlink == 0
    assert len(await world.rows(b"O")) == 1
    assert await world.fails(MetaRpc.LINK, inode=f.id, parent=ROOT, name=b"g") == "ENOENT"
    other = await World(world.engine).start()
    other.caller.client_id = 8
    await other.open(f.id)
    await world.close(f.id, length=5)
    assert (await other.stat(f.id)).length == 5
    await other.close(f.id)
    assert await world.fails(MetaRpc.GET_ATTR, inode=f.id) == "ESTALE"
    assert await world.rows(b"O") == await world.rows(b"S") == await world.rows(b"s") == []
    assert len(await world.rows(b"G")) == 1
    await world.close(f.id)


async def test_a_late_repeat_of_a_close_does_not_end_the_next_session(world: World) -> None:
    f = await world.create(b"f")
    caller = pb.Caller(client_id=7, request_id=1 << 40)
    await world.call(MetaRpc.CLOSE, caller=caller, inode=f.id)
    await world.open(f.id)
    other = await World(world.engine).start()
    await other.call(MetaRpc.CLOSE, caller=caller, inode=f.id)
    await world.unlink(b"f")
    assert (await world.stat(f.id)).nlink == 0


async def test_replaced_while_open(world: World) -> None:
    f = await world.create(b"f")
    await world.file(b"g")
    reply = await world.rename(b"g", b"f")
    assert (reply.replaced.id, reply.replaced.nlink) == (f.id, 0)
    await world.close(f.id)
    assert await world.rows(b"G") == []  # nothing was ever written to it


async def test_garbage_is_collected(world: World, storage: FakeStorage) -> None:
    small, big, kept = [await world.create(n) for n in (b"small", b"big", b"kept")]
    for inode, length in ((small, 5), (big, 40 * CHUNK + 1), (kept, 3 * CHUNK)):
        fill(storage, inode, length)
        await world.close(inode.id, length=length)
    await world.unlink(b"small")
    await world.unlink(b"big")
    storage.broken.add(world.chains[big.layout.chains[3] - 1])
    collector = Collector(world.engine, storage)
    waiting = await collector.collect()
    assert waiting <= 1
    storage.broken.clear()
    assert waiting + await collector.collect() == 2
    assert (await world.rows(b"G"), storage.count()) == ([], 3)
    assert await collector.collect() == 0


async def test_a_small_file_asks_one_chain(world: World, storage: FakeStorage) -> None:
    f = await world.create(b"f")
    await world.close(f.id, length=1)
    await world.unlink(b"f")
    await Collector(world.engine, storage).collect()
    assert storage.queries == 1


async def test_collectors_side_by_side_in_pages(
    world: World, storage: FakeStorage, autojump_clock: trio.abc.Clock
) -> None:
    for n in range(150):
        f = await world.create(b"%d" % n)
        fill(storage, f, 2 * CHUNK)
        await world.close(f.id, length=2 * CHUNK)
        await world.unlink(b"%d" % n)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(Collector(world.engine, storage).collect)
    assert (await world.rows(b"G"), storage.count()) == ([], 0)


async def test_what_is_open_is_never_collected(world: World, storage: FakeStorage) -> None:
    f = await world.create(b"f")
    fill(storage, f, 5)
    await world.close(f.id, length=5)
    await world.unlink(b"f")
    tr = world.engine.transaction()
    tr.set(b"S" + f.id.to_bytes(8, "big") + bytes(8), b"")
    await tr.commit()
    assert await Collector(world.engine, storage).collect() == 0
    assert storage.count() == 1


async def test_keep_alive_seldom_writes(world: World, autojump_clock: trio.abc.Clock) -> None:
    async def version() -> int:
        tr = world.engine.transaction()
        return await tr.commit()

    alive = {"client_id": 7, "host": "h", "mountpoint": "/m"}
    before = await version()
    for _ in range(100):
        await world.call(MetaRpc.KEEP_ALIVE, **alive)
        await trio.sleep(REFRESH_SECONDS / 10)
        world.tick(REFRESH_SECONDS / 10)
    assert 9 <= await version() - before <= 11
    await world.create(b"f")
    [(_, row)] = await world.rows(b"K")
    assert b"/m" in row
    other = await World(world.engine).start()
    other.now = world.now
    await other.open((await other.lookup(b"f")).id)
    [(_, row)] = await world.rows(b"K")
    assert b"/m" in row


async def test_a_silent_client_is_pruned(world: World, storage: FakeStorage) -> None:
    read = await world.file(b"read")
    orphan, grown, cut = [await world.create(n) for n in (b"orphan", b"grown", b"cut")]
    await world.open(read.id)
    fill(storage, orphan, 3)
    fill(storage, grown, 17 * CHUNK + 9)
    fill(storage, cut, 100)
    await world.setattr(cut.id, length=500)
    await world.unlink(b"orphan")
    now = world.tick(EXPIRED_SECONDS)
    assert await prune(world.engine, storage, now) == 0
    now = world.tick()
    assert await prune(world.engine, storage, now) == 1
    for prefix in (b"S", b"s", b"K", b"R", b"O"):
        assert await world.rows(prefix) == []
    settled = await world.stat(grown.id)
    assert (settled.length, settled.mtime) == (17 * CHUNK + 9, now)
    assert ((await world.stat(cut.id)).length, (await world.stat(read.id)).length) == (500, 0)
    await Collector(world.engine, storage).collect()
    assert storage.count() == 18 + 1
    await world.close(grown.id, length=5)
    assert (await world.stat(grown.id)).length == settled.length


async def test_a_client_that_is_heard_keeps_its_files(world: World, storage: FakeStorage) -> None:
    f = await world.create(b"f")
    await world.unlink(b"f")
    await World(world.engine).clients.keep_alive(
        client(world.caller.client_id), "h", "/m", world.tick(EXPIRED_SECONDS)
    )
    assert await prune(world.engine, storage, world.tick()) == 0
    assert (await world.stat(f.id)).nlink == 0


async def test_pruning_waits_for_chunks(world: World, storage: FakeStorage) -> None:
    f, g = await world.create(b"f"), await world.create(b"g")
    fill(storage, f, 10)
    storage.broken.add(world.chains[f.layout.chains[0] - 1])
    assert await prune(world.engine, storage, world.tick(EXPIRED_SECONDS + 1)) == 0
    assert len(await world.rows(b"K")) == 1
    storage.broken.clear()
    assert await prune(world.engine, storage, world.now) == 1
    assert ((await world.stat(f.id)).length, (await world.stat(g.id)).length) == (10, 0)


async def test_old_answers_are_swept(world: World) -> None:
    for n in range(1200):
        await world.file(b"%d" % n)
    world.tick(RESULT_SECONDS)
    await world.file(b"new")
    assert await sweep_results(world.engine, world.tick()) == 1200
    assert len(await world.rows(b"R")) == 1


async def test_one_server_has_the_lease(world: World) -> None:
    one, two = Generation(1), Generation(2)
    engine, now, second = world.engine, world.now, 10**9
    assert await lease.hold(engine, one, now)
    assert not await lease.hold(engine, two, now + 9 * second)
    assert await lease.hold(engine, one, now + 9 * second)
    assert not await lease.hold(engine, two, now + 15 * second)
    assert await lease.hold(engine, two, now + 30 * second)
    assert not await lease.hold(engine, one, now + 31 * second)


async def test_background_work(
    world: World, storage: FakeStorage, autojump_clock: trio.abc.Clock
) -> None:
    def clock() -> int:
        return world.now + int(trio.current_time() * 10**9)

    f = await world.create(b"f")
    fill(storage, f, 10)
    storage.broken.add(world.chains[0])
    await world.unlink(b"f")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(background.work, world.engine, storage, Generation(1), clock)
        await trio.sleep(EXPIRED_SECONDS - 1)
        assert (await world.stat(f.id)).nlink == 0
        storage.broken.clear()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (storage.count(), await world.rows(b"S")) == (0, [])


async def test_nobody_is_pruned_just_because_all_stood_still(
    world: World, storage: FakeStorage, autojump_clock: trio.abc.Clock
) -> None:
    """The wall clock goes on while a machine sleeps, with its clients and its servers."""

    def clock() -> int:
        return world.now + int(trio.current_time() * 10**9)

    f = await world.create(b"f")
    await world.unlink(b"f")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(background.work, world.engine, storage, Generation(1), clock)
        for _ in range(EXPIRED_SECONDS // 10):
            await trio.sleep(10)
            await world.clients.keep_alive(client(7), "", "", clock())
        world.tick(3600)
        await trio.sleep(EXPIRED_SECONDS - 5)
        assert (await world.stat(f.id)).nlink == 0
        await trio.sleep(15)
        nursery.cancel_scope.cancel()
    assert await world.rows(b"S") == [], "it has not been heard since"
