"""Many at once: no needless conflicts, no loops, nothing twice; two servers on one store."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.embedded import open_embedded
from fireflyfs.kv.memory import Faults, MemoryEngine, MemoryTransaction
from fireflyfs.rpc.methods import MetaRpc
from tests.unit.meta_service.world import ROOT, World, client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class CountingEngine(MemoryEngine):
    """Counts the conflicts that really happened; every read and commit yields to others."""

    def __init__(self) -> None:
        super().__init__(random.Random(1), Faults(delay=0.001))
        self.conflicted = 0

    def transaction(self) -> MemoryTransaction:
        return _Counting(self)


class _Counting(MemoryTransaction):
    async def commit(self) -> int:
        try:
            return await super().commit()
        except FsError as error:
            if error.code is Code.KV_CONFLICT and isinstance(self._engine, CountingEngine):
                self._engine.conflicted += 1
            raise


async def together(*jobs: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)


async def make_and_remove(world: World, who: int) -> None:
    """All that changes a directory's entries."""
    for n in range(10):
        name = b"%d-%d" % (who, n)
        made = await world.create(name)
        await world.mkdir(b"d" + name)
        await world.symlink(b"s" + name, b"t")
        await world.link(made.id, b"l" + name)
        await world.rename(b"s" + name, b"r" + name)
        await world.unlink(name)
        await world.close(made.id, length=1)
        await world.rmdir(b"d" + name)


async def test_creators_in_one_directory_do_not_conflict(
    autojump_clock: trio.abc.Clock,
) -> None:
    engine = CountingEngine()
    worlds = [await World(engine).start() for _ in range(8)]
    for who, world in enumerate(worlds):
        world.caller.client_id = who + 1
        await world.file(b"takes a block of numbers %d" % who)
        await world.clients.keep_alive(client(who + 1), "h", "/", world.now)
    engine.conflicted = 0
    await together(*(partial(make_and_remove, w, who) for who, w in enumerate(worlds)))
    assert engine.conflicted == 0
    assert len(await worlds[0].names()) == 8 + 8 * 20
    root = await worlds[0].stat()
    assert root.nlink == 2
    assert root.change == 1 + 8 + 8 * 10 * 7


async def test_servers_hand_out_each_number_once(autojump_clock: trio.abc.Clock) -> None:
    engine = CountingEngine()
    worlds = [await World(engine).start() for _ in range(4)]
    made: list[int] = []

    async def make(world: World, who: int) -> None:
        made.extend([(await world.file(b"%d-%d" % (who, n))).id for n in range(300)])

    await together(*(partial(make, w, who) for who, w in enumerate(worlds)))
    assert len(set(made)) == len(made) == 1200


async def test_of_many_creators_of_one_name_one_wins(autojump_clock: trio.abc.Clock) -> None:
    engine = CountingEngine()
    worlds = [await World(engine).start() for _ in range(6)]
    answers: list[str] = []

    async def make(world: World) -> None:
        answers.append(await world.fails(MetaRpc.MKDIR, parent=ROOT, name=b"d"))

    await together(*(partial(make, w) for w in worlds))
    assert sorted(answers) == ["EEXIST"] * 5 + ["OK"]
    assert (await worlds[0].stat()).nlink == 3


@pytest.mark.parametrize("seed", range(5))
async def test_crossing_renames_make_no_loop(autojump_clock: trio.abc.Clock, seed: int) -> None:
    engine = MemoryEngine(random.Random(seed), Faults(delay=0.001, unknown=0.1))
    worlds = [await World(engine).start() for _ in range(2)]
    for _ in range(5):
        a, b = await worlds[0].mkdir(b"a"), await worlds[0].mkdir(b"b")
        answers = [""] * 2

        async def move(which: int, name: bytes, into: int, answers: list[str] = answers) -> None:
            answers[which] = await worlds[which].fails(
                MetaRpc.RENAME, parent=ROOT, name=name, new_parent=into, new_name=name
            )

        await together(partial(move, 0, b"a", b.id), partial(move, 1, b"b", a.id))
        assert sorted(answers) == ["EINVAL", "OK"] or sorted(answers) == ["ENOENT", "OK"], answers
        [left] = await worlds[0].names()
        outer = await worlds[0].lookup(left)
        [inner] = await worlds[0].names(outer.id)
        await worlds[0].rmdir(inner, outer.id)
        await worlds[0].rmdir(left)


async def test_rmdir_against_create(autojump_clock: trio.abc.Clock) -> None:
    engine = MemoryEngine(random.Random(3), Faults(delay=0.001, conflict=0.2))
    worlds = [await World(engine).start() for _ in range(2)]
    for n in range(30):
        d = await worlds[0].mkdir(b"d%d" % n)
        answers: dict[str, str] = {}

        async def remove(name: bytes, answers: dict[str, str] = answers) -> None:
            answers["rmdir"] = await worlds[0].fails(MetaRpc.RMDIR, parent=ROOT, name=name)

        async def make(inode: int, answers: dict[str, str] = answers) -> None:
            answers["make"] = await worlds[1].fails(MetaRpc.MKNOD, parent=inode, name=b"f")

        await together(partial(remove, b"d%d" % n), partial(make, d.id))
        assert answers in (
            {"rmdir": "OK", "make": "ESTALE"},
            {"rmdir": "ENOTEMPTY", "make": "OK"},
        )


async def test_unlink_against_open(autojump_clock: trio.abc.Clock) -> None:
    engine = MemoryEngine(random.Random(4), Faults(delay=0.001, unknown=0.2))
    worlds = [await World(engine).start() for _ in range(2)]
    for n in range(30):
        f = await worlds[0].file(b"f%d" % n)
        answers: list[str] = []

        async def open_it(inode: int, answers: list[str] = answers) -> None:
            answers.append(await worlds[1].fails(MetaRpc.OPEN, inode=inode))

        await together(partial(worlds[0].unlink, b"f%d" % n), partial(open_it, f.id))
        held = "OK" if answers == ["OK"] else "ESTALE"
        assert await worlds[0].fails(MetaRpc.GET_ATTR, inode=f.id) == held
        await worlds[1].close(f.id)
        assert await worlds[0].fails(MetaRpc.GET_ATTR, inode=f.id) == "ESTALE"


async def test_two_servers_on_one_embedded_store(tmp_path: Path) -> None:
    engines = [await open_embedded(tmp_path / "kv") for _ in range(2)]
    try:
        worlds = [World(engine) for engine in engines]
        await together(*(w.start for w in worlds))
        await together(*(partial(make_and_remove, w, who) for who, w in enumerate(worlds)))
        for world in worlds:
            assert len(await world.names()) == 40
            assert (await world.stat()).nlink == 2
        made = await worlds[0].create(b"f")
        assert await worlds[1].lookup(b"f") == made
        await worlds[1].call(MetaRpc.FLUSH)
    finally:
        for engine in engines:
            await engine.close()
