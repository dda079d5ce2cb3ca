"""Many readers beside writers: each sees one version, whole, and never an older one later."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from storage_service.store.contents import Window
from tests.unit.storage_service.store.driver import WHOLE, chunk, opened, put

if TYPE_CHECKING:
    from pathlib import Path

    from storage_service.store.store import ChunkStore

SIZE = 70_000


def _change(version: int) -> tuple[int, bytes]:
    """Version ``v`` differs from ``v - 1`` in one place, at most 4 KiB; every 40th is zeros."""
    if version % 40 == 1:
        return 0, bytes(SIZE)
    rng = random.Random(version)
    return rng.randrange(SIZE - 4096), bytes([version % 256]) * rng.choice([1, 700, 4096])


def _expected(version: int) -> bytes:
    data = bytearray(SIZE)
    for number in range(version - (version - 1) % 40, version + 1):
        at, piece = _change(number)
        data[at : at + len(piece)] = piece
    return bytes(data)


async def test_readers_keep_their_version(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        for index in range(2):
            await put(store, index, 1, 0, _change(1)[1])
        async with trio.open_nursery() as nursery:
            for index in range(2):
                nursery.start_soon(_read, store, index)
            nursery.start_soon(_flush, store)
            async with trio.open_nursery() as writers:
                for index in range(2):
                    writers.start_soon(_write, store, index)
            nursery.cancel_scope.cancel()
        for index in range(2):
            assert (await store.read(chunk(index), 0, WHOLE)).data == _expected(400)


async def _write(store: ChunkStore, index: int) -> None:
    for version in range(2, 401):
        offset, data = _change(version)
        await put(store, index, version, offset, data, step=("both", "once")[version % 2])


async def _read(store: ChunkStore, index: int) -> None:
    async def one() -> None:
        last = 0
        while True:
            outcome = await store.read(chunk(index), 0, WHOLE)
            assert outcome.version >= last
            last = outcome.version
            assert outcome.data == _expected(last)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)


async def _flush(store: ChunkStore) -> None:
    while True:
        await store.flush()


async def test_a_reader_in_a_thread_keeps_its_block(
    tmp_path: Path,
) -> None:
    """The bytes of the version that a reader holds stay until it is done, whatever is written."""
    async with opened(tmp_path / "s") as store:
        old = b"a" * SIZE
        await put(store, 0, 1, 0, old)
        pin = store._cache.pin(chunk(0), pending=False)
        assert pin is not None
        for version in range(2, 60):
            await put(store, 0, version, version * 7, b"b" * 3000)
            if version % 20 == 0:
                await put(store, 1, version, 0, b"c" * SIZE)
                await put(store, 0, version, 0, b"d" * SIZE, step="prepare")
                await store.abort(chunk(0))
            await store.flush()
        window = Window(pin.content, pin.redos, 0, SIZE)
        window.read(store._files, chunk(0))
        assert window.data() == old
        store._cache.unpin(pin)
        await store.flush()
        await store.flush()


async def test_concurrent_flushes_share_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        calls = 0
        sync = store._metadata.sync

        def counted() -> None:
            nonlocal calls
            calls += 1
            sync()

        store._metadata.sync = counted  # type: ignore[method-assign]
        await put(store, 0, 1, 0, b"x")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(store.flush)
        assert calls <= 2
