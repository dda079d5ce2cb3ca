"""Namespaces out of a store and into one: whole and consistent, or not at all."""

from __future__ import annotations

import io
import json
import os
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from fireflyfs.cli.__main__ import main
from fireflyfs.errors import Code, FsError
from fireflyfs.kv import dump_file, moving
from fireflyfs.kv.memory import MemoryEngine
from fireflyfs.kv.open import open_engine
from fireflyfs.kv.retry import transact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fireflyfs.kv.base import Engine, Transaction

Page = list[tuple[bytes, bytes]]


def some_pairs(count: int) -> Page:
    rng = random.Random(count)
    return sorted({(b"k%06d" % n, rng.randbytes(rng.randint(0, 60))) for n in range(count)})


async def content(engine: Engine) -> Page:
    return await transact(engine, lambda tr: tr.get_range(*moving.EVERYTHING))


async def filled(pairs: Page) -> MemoryEngine:
    engine = MemoryEngine()
    await moving.write_page(engine, pairs)
    return engine


def dumped(pairs: Page) -> bytes:
    file = io.BytesIO()
    digest = moving.Digest()
    dump_file.write_head(file)
    for at in range(0, len(pairs), 3):
        digest.add(pairs[at : at + 3])
        dump_file.write_page(file, pairs[at : at + 3])
    dump_file.write_end(file, digest)
    return file.getvalue()


def loaded(data: bytes) -> Page:
    return [pair for page in dump_file.read_pages(io.BytesIO(data)) for pair in page]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 2000])
async def test_reads_all_in_order(count: int) -> None:
    pairs, seen = some_pairs(count), Page()
    engine = await filled(pairs)
    digest = await moving.read_all(engine, collector(seen))
    assert seen == pairs == await content(engine)
    assert digest == await moving.digest_of(engine)
    assert (digest.pairs, digest.size) == (count, sum(len(k) + len(v) for k, v in pairs))


def collector(seen: Page, pause: float = 0.0) -> Callable[[Page], Awaitable[None]]:
    async def sink(page: Page) -> None:
        seen.extend(page)
        await trio.sleep(pause)

    return sink


async def test_slow_reading_takes_several_snapshots(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pairs, seen = some_pairs(3000), Page()
    await moving.read_all(await filled(pairs), collector(seen, pause=4.0))
    assert seen == pairs


async def test_change_between_two_snapshots_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = await filled(some_pairs(3000))

    async def change(tr: Transaction) -> None:
        tr.set(b"k000001", b"changed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_after, 9.0, engine, change)
        with pytest.raises(FsError, match="changed while it was read") as caught:
            await moving.read_all(engine, collector([], pause=4.0))
    assert caught.value.code is Code.KV_CONFLICT


async def _after(
    seconds: float, engine: Engine, fn: Callable[[Transaction], Awaitable[None]]
) -> None:
    await trio.sleep(seconds)
    await transact(engine, fn)


async def test_large_pages_are_several_transactions() -> None:
    engine = MemoryEngine()
    await moving.write_page(engine, [(b"%03d" % n, bytes(100_000)) for n in range(150)])
    assert len(await content(engine)) == 150
    assert engine.version >= 15


async def test_destination_is_whole_or_empty() -> None:
    engine = await filled([(b"old", b"")])
    with pytest.raises(FsError, match="--force replaces") as caught:
        async with moving.all_or_nothing(engine, force=False):
            pass
    assert caught.value.code is Code.EXISTS
    assert await content(engine) == [(b"old", b"")]
    async with moving.all_or_nothing(engine, force=True):
        await moving.write_page(engine, [(b"new", b"")])
    assert await content(engine) == [(b"new", b"")]
    with pytest.raises(FsError, match="full"):
        await fail_half_way(engine)
    assert await content(engine) == []


async def fail_half_way(engine: Engine, *, close: bool = False) -> None:
    async with moving.all_or_nothing(engine, force=True):
        await moving.write_page(engine, [(b"newer", b"")])
        if close:
            await engine.close()
        raise FsError(Code.NO_SPACE, "full")


async def test_destination_that_cannot_be_cleared_says_so() -> None:
    with pytest.raises(FsError, match="holds a part only") as caught:
        await fail_half_way(MemoryEngine(), close=True)
    assert isinstance(caught.value.__cause__, FsError)
    assert caught.value.__cause__.code is Code.NO_SPACE


def test_dump_is_read_back() -> None:
    for count in (0, 1, 3, 100):
        assert loaded(dumped(some_pairs(count))) == some_pairs(count)


def test_every_damage_is_noticed() -> None:
    data = dumped(some_pairs(7))
    for at in range(len(data)):
        for broken in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]):
            with pytest.raises(FsError) as caught:
                loaded(broken)
            assert caught.value.code in (Code.MALFORMED, Code.CHECKSUM)
    with pytest.raises(FsError, match="end does not fit"):
        loaded(data + b"x")


def test_keys_out_of_order_are_refused() -> None:
    for pairs in ([(b"b", b""), (b"a", b"")], [(b"a", b"")] * 2, [*some_pairs(3), (b"a", b"")]):
        with pytest.raises(FsError, match="not in order"):
            loaded(dumped(pairs))


def make(directory: Path, pairs: Page) -> str:
    url = f"embedded:{directory}"

    async def fill() -> None:
        engine = await open_engine(url)
        await moving.write_page(engine, pairs)
        await engine.close()

    trio.run(fill)
    return url


def content_of(url: str) -> Page:
    async def read() -> Page:
        engine = await open_engine(url)
        try:
            return await content(engine)
        finally:
            await engine.close()

    return trio.run(read)


def test_command_line_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = some_pairs(1234)
    origin = make(tmp_path / "origin", pairs)
    file, goal = str(tmp_path / "dump"), f"embedded:{tmp_path}/goal"
    assert main(["kv", "dump", origin, file]) == 0
    assert "1,234 keys" in capsys.readouterr().out
    assert main(["kv", "restore", file, goal, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == 1234
    assert content_of(goal) == pairs
    assert main(["kv", "copy", goal, f"embedded:{tmp_path}/third"]) == 0
    assert content_of(f"embedded:{tmp_path}/third") == pairs
    assert sorted(os.listdir(tmp_path)) == ["dump", "goal", "origin", "third"]


def test_command_line_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = make(tmp_path / "origin", some_pairs(3))
    file = tmp_path / "dump"
    assert main(["kv", "dump", origin, str(file)]) == 0
    for arguments, said in (
        (["dump", origin, str(file)], "exists: --force replaces it"),
        (["dump", f"embedded:{tmp_path}/absent", str(tmp_path / "d")], "there is no store in"),
        (["dump", str(tmp_path / "absent"), str(tmp_path / "d")], "holds no FireflyFS cluster"),
        (["dump", "memory:", str(tmp_path / "d")], "holds no namespace"),
        (["restore", str(file), origin], "the destination is not empty"),
        (["restore", str(tmp_path / "absent"), origin], "No such file"),
        (["copy", origin, origin], "are the same namespace"),
    ):
        assert main(["kv", *arguments]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["dump", "origin"]


def test_damaged_dump_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = make(tmp_path / "origin", some_pairs(2000))
    file = tmp_path / "dump"
    assert main(["kv", "dump", origin, str(file)]) == 0
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert main(["kv", "restore", str(file), origin, "--force"]) == 1
    assert "damaged after 1500 keys" in capsys.readouterr().err
    assert content_of(origin) == some_pairs(2000)
