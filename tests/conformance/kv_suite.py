"""What every engine of the transactional store must do; a subclass gives the ``engine`` fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.atomic import pack_signed, unpack_signed, unpack_unsigned
from fireflyfs.kv.limited import STAMP_SIZE
from fireflyfs.kv.retry import transact
from fireflyfs.limits import MAX_KV_KEY, MAX_KV_VALUE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.base import Engine, Transaction

ALL = (b"", b"\xff")


async def put(engine: Engine, **pairs: bytes) -> None:
    async def fn(tr: Transaction) -> None:
        for key, value in pairs.items():
            tr.set(key.encode(), value)

    await transact(engine, fn)


async def value_of(engine: Engine, key: bytes) -> bytes | None:
    return await transact(engine, lambda tr: tr.get(key))


async def content(engine: Engine) -> dict[bytes, bytes]:
    return dict(await transact(engine, lambda tr: tr.get_range(*ALL)))


async def refused(code: Code, awaitable: Awaitable[object]) -> None:
    with pytest.raises(FsError) as caught:
        await awaitable
    assert caught.value.code is code


class KvSuite:
    async def test_keys_are_ordered_as_bytes(self, engine: Engine) -> None:
        tr = engine.transaction()
        keys = [b"", b"\x00", b"a", b"a\x00", b"a\x00b", b"aa", b"b", b"\xfe\xff"]
        for key in reversed(keys):
            tr.set(key, b"v" + key)
        await tr.commit()
        tr = engine.transaction()
        assert [key for key, _ in await tr.get_range(*ALL)] == keys
        assert [k for k, _ in await tr.get_range(*ALL, reverse=True)] == keys[::-1]
        assert await tr.get_range(b"a", b"aa", limit=2) == [(b"a", b"va"), (b"a\x00", b"va\x00")]
        assert [k for k, _ in await tr.get_range(b"a", b"b", limit=1, reverse=True)] == [b"aa"]
        assert await tr.get_range(b"b", b"b") == []
        assert await tr.get(b"") == b"v"
        assert await tr.get(b"absent") is None
        tr.cancel()

    async def test_empty_value_is_not_absence(self, engine: Engine) -> None:
        await put(engine, k=b"")
        assert await value_of(engine, b"k") == b""

    async def test_snapshot_does_not_move(self, engine: Engine) -> None:
        await put(engine, a=b"1", b=b"1")
        reader = engine.transaction()
        assert await reader.get(b"a") == b"1"
        await put(engine, a=b"2", b=b"2", c=b"2")
        assert await reader.get(b"b") == b"1"
        assert await reader.get_range(*ALL) == [(b"a", b"1"), (b"b", b"1")]
        await reader.commit()
        assert await content(engine) == {b"a": b"2", b"b": b"2", b"c": b"2"}

    async def test_writes_appear_at_commit_and_all_at_once(self, engine: Engine) -> None:
        tr = engine.transaction()
        tr.set(b"a", b"1")
        tr.set(b"b", b"1")
        assert await content(engine) == {}
        await tr.commit()
        assert await content(engine) == {b"a": b"1", b"b": b"1"}

    async def test_cancelled_leaves_nothing(self, engine: Engine) -> None:
        tr = engine.transaction()
        tr.set(b"a", b"1")
        tr.cancel()
        tr.cancel()
        await refused(Code.INVALID, tr.commit())
        await refused(Code.INVALID, tr.get(b"a"))
        assert await content(engine) == {}

    async def test_commit_versions_grow_and_are_read_back(self, engine: Engine) -> None:
        versions = []
        for number in range(3):
            tr = engine.transaction()
            tr.set(b"k", b"%d" % number)
            versions.append(await tr.commit())
        assert versions == sorted(set(versions))
        tr = engine.transaction()
        await tr.get(b"k")
        assert await tr.commit() >= versions[-1]  # others may have committed, or time passed

    @pytest.mark.parametrize("meanwhile", ["set", "clear", "clear_range", "add", "conflict_range"])
    async def test_read_key_that_changed_is_a_conflict(
        self, engine: Engine, meanwhile: str
    ) -> None:
        await put(engine, k=pack_signed(1))
        tr = engine.transaction()
        await tr.get(b"k")
        tr.set(b"other", b"")
        changes: dict[str, Callable[[Transaction], None]] = {
            "set": lambda t: t.set(b"k", b"2"),
            "clear": lambda t: t.clear(b"k"),
            "clear_range": lambda t: t.clear_range(b"a", b"z"),
            "add": lambda t: t.add(b"k", 1),
            "conflict_range": lambda t: t.add_write_conflict_range(b"k", b"l"),
        }
        other = engine.transaction()
        changes[meanwhile](other)
        await other.commit()
        await refused(Code.KV_CONFLICT, tr.commit())
        assert b"other" not in await content(engine)

    async def test_unrelated_commits_do_not_conflict(self, engine: Engine) -> None:
        await put(engine, k=b"1")
        tr = engine.transaction()
        await tr.get(b"k")
        await tr.get_range(b"m", b"n")
        tr.set(b"k", b"2")
        await put(engine, j=b"", l=b"", n=b"")
        await tr.commit()
        assert await value_of(engine, b"k") == b"2"

    async def test_phantom_is_a_conflict(self, engine: Engine) -> None:
        tr = engine.transaction()
        assert await tr.get_range(b"d/", b"d0") == []
        tr.clear(b"d")
        await put(engine, **{"d/new": b""})
        await refused(Code.KV_CONFLICT, tr.commit())

    @pytest.mark.parametrize(
        ("reverse", "written", "conflict"),
        [(False, "b", True), (False, "bb", False), (True, "c", True), (True, "bb", False)],
    )
    async def test_limited_range_conflicts_as_far_as_it_was_seen(
        self, engine: Engine, reverse: bool, written: str, conflict: bool
    ) -> None:
        await put(engine, a=b"", b=b"", c=b"", d=b"")
        tr = engine.transaction()
        assert len(await tr.get_range(b"a", b"z", limit=2, reverse=reverse)) == 2
        tr.set(b"other", b"")
        await put(engine, **{written: b"new"})
        if conflict:
            await refused(Code.KV_CONFLICT, tr.commit())
        else:
            await tr.commit()

    async def test_write_skew_is_a_conflict(self, engine: Engine) -> None:
        await put(engine, x=b"on", y=b"on")
        first, second = engine.transaction(), engine.transaction()
        for tr in (first, second):
            assert len(await tr.get_range(b"x", b"z")) == 2
        first.set(b"x", b"off")
        second.set(b"y", b"off")
        await first.commit()
        await refused(Code.KV_CONFLICT, second.commit())

    async def test_snapshot_reads_do_not_conflict(self, engine: Engine) -> None:
        await put(engine, k=b"1")
        tr = engine.transaction()
        await tr.get(b"k", snapshot=True)
        await tr.get_range(*ALL, snapshot=True)
        tr.set(b"other", b"")
        await put(engine, k=b"2", j=b"2")
        await tr.commit()

    async def test_read_conflict_range_without_a_read(self, engine: Engine) -> None:
        tr = engine.transaction()
        await tr.get(b"unrelated")
        tr.add_read_conflict_range(b"a", b"c")
        tr.set(b"other", b"")
        await put(engine, b=b"")
        await refused(Code.KV_CONFLICT, tr.commit())

    async def test_blind_writes_never_conflict(self, engine: Engine) -> None:
        first, second = engine.transaction(), engine.transaction()
        first.set(b"k", b"1")
        second.set(b"k", b"2")
        await second.commit()
        await first.commit()
        assert await value_of(engine, b"k") == b"1"

    async def test_reads_see_own_writes(self, engine: Engine) -> None:
        await put(engine, a=b"1", b=b"1", c=b"1", n=pack_signed(40))
        tr = engine.transaction()
        tr.set(b"b", b"2")
        tr.clear(b"c")
        tr.set(b"d", b"2")
        tr.add(b"n", 2)
        tr.add(b"new", 7)
        assert await tr.get(b"b") == b"2"
        assert await tr.get(b"c") is None
        assert unpack_signed(await tr.get(b"n")) == 42
        expected = [(b"a", b"1"), (b"b", b"2"), (b"d", b"2"), (b"n", pack_signed(42))]
        expected.append((b"new", pack_signed(7)))
        assert await tr.get_range(*ALL) == expected
        assert await tr.get_range(*ALL, limit=3) == expected[:3]
        assert await tr.get_range(*ALL, limit=3, reverse=True) == expected[:1:-1]
        await tr.commit()
        assert await content(engine) == dict(expected)

    async def test_clear_range_then_write_inside(self, engine: Engine) -> None:
        await put(engine, a=b"1", b=b"1", c=b"1", d=b"1")
        tr = engine.transaction()
        tr.set(b"bb", b"gone")
        tr.add(b"c", 1)
        tr.clear_range(b"b", b"d")
        assert await tr.get(b"b") is None
        assert await tr.get(b"c") is None
        tr.add(b"c", 5)
        tr.set(b"bc", b"2")
        expected = {b"a": b"1", b"bc": b"2", b"c": pack_signed(5), b"d": b"1"}
        assert dict(await tr.get_range(*ALL)) == expected
        assert [k for k, _ in await tr.get_range(b"b", b"z", limit=2)] == [b"bc", b"c"]
        await tr.commit()
        assert await content(engine) == expected

    async def test_add_and_maximum(self, engine: Engine) -> None:
        first, second = engine.transaction(), engine.transaction()
        for tr, delta in ((first, 5), (second, -7)):
            await tr.get(b"unrelated")
            tr.add(b"sum", delta)
            tr.maximum(b"top", delta + 100)
        await first.commit()
        await second.commit()
        assert unpack_signed(await value_of(engine, b"sum")) == -2
        assert unpack_unsigned(await value_of(engine, b"top")) == 105

    async def test_atomic_on_own_set(self, engine: Engine) -> None:
        tr = engine.transaction()
        tr.set(b"n", pack_signed(1))
        tr.add(b"n", 1)
        tr.maximum(b"n", 1)
        tr.clear(b"m")
        tr.add(b"m", 3)
        await tr.commit()
        assert unpack_signed(await value_of(engine, b"n")) == 2
        assert unpack_signed(await value_of(engine, b"m")) == 3

    async def test_versionstamped_keys_grow(self, engine: Engine) -> None:
        for number in range(3):
            tr = engine.transaction()
            await tr.get(b"unrelated")
            tr.set_versionstamped_key(b"feed/", b"%d first" % number)
            tr.set_versionstamped_key(b"feed/", b"%d second" % number)
            await tr.commit()
        pairs = await transact(engine, lambda tr: tr.get_range(b"feed/", b"feed0"))
        assert {len(key) for key, _ in pairs} == {len(b"feed/") + STAMP_SIZE}
        assert [value.decode() for _, value in pairs] == [
            f"{number} {which}" for number in range(3) for which in ("first", "second")
        ]

    async def test_versionstamped_key_conflicts_with_readers_of_the_range(
        self, engine: Engine
    ) -> None:
        reader = engine.transaction()
        assert await reader.get_range(b"feed/", b"feed0") == []
        reader.set(b"seen", b"")
        tr = engine.transaction()
        tr.set_versionstamped_key(b"feed/", b"")
        await tr.commit()
        await refused(Code.KV_CONFLICT, reader.commit())

    async def test_watch_wakes_on_change(self, engine: Engine) -> None:
        await put(engine, k=b"1")
        tr = engine.transaction()
        wait = await tr.watch(b"k")
        await tr.commit()
        woken = trio.Event()

        async def waiter() -> None:
            await wait()
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await put(engine, other=b"")
            await trio.testing.wait_all_tasks_blocked()
            assert not woken.is_set()
            await put(engine, k=b"2")
            with trio.fail_after(5):
                await woken.wait()

    async def test_watch_of_what_has_changed_already_returns(self, engine: Engine) -> None:
        tr = engine.transaction()
        wait = await tr.watch(b"k")
        await tr.commit()
        await put(engine, k=b"1")
        with trio.fail_after(5):
            await wait()

    async def test_limits(self, engine: Engine) -> None:
        tr = engine.transaction()
        too_long = bytes(MAX_KV_KEY + 1)
        calls: list[Callable[[], None]] = [
            lambda: tr.set(too_long, b""),
            lambda: tr.clear(too_long),
            lambda: tr.add(too_long, 1),
            lambda: tr.clear_range(b"", too_long + b"\x00"),
            lambda: tr.set_versionstamped_key(too_long[:-5], b""),
            lambda: tr.set(b"k", bytes(MAX_KV_VALUE + 1)),
        ]
        for call in calls:
            with pytest.raises(FsError) as caught:
                call()
            assert caught.value.code is Code.KV_LIMIT
        with pytest.raises(FsError):
            tr.clear_range(b"b", b"a")
        tr.set(too_long[:-1], bytes(MAX_KV_VALUE))
        await tr.commit()
        assert await value_of(engine, too_long[:-1]) == bytes(MAX_KV_VALUE)

    async def test_transaction_too_large(self, engine: Engine) -> None:
        tr = engine.transaction()
        for number in range(101):
            tr.set(b"%d" % number, bytes(MAX_KV_VALUE))
        await refused(Code.KV_LIMIT, tr.commit())
        assert await content(engine) == {}

    async def test_large_transaction(self, engine: Engine) -> None:
        tr = engine.transaction()
        for number in range(95):
            tr.set(b"%03d" % number, bytes(MAX_KV_VALUE))
        await tr.commit()
        assert len(await content(engine)) == 95

    async def test_too_old(self, engine: Engine, autojump_clock: trio.testing.MockClock) -> None:
        await self.check_too_old(engine)

    async def check_too_old(self, engine: Engine) -> None:
        await put(engine, k=b"1")
        reader, writer, idle = (engine.transaction() for _ in range(3))
        await reader.get(b"k")
        await writer.get(b"k")
        writer.set(b"k", b"2")
        await trio.sleep(7)
        await put(engine, other=b"")
        await refused(Code.KV_TOO_OLD, reader.get(b"other"))  # k might be remembered
        await refused(Code.KV_TOO_OLD, writer.commit())
        assert await idle.get(b"k") == b"1"
        reader.cancel()
        idle.cancel()

    async def test_concurrent_increments_lose_nothing(self, engine: Engine) -> None:
        async def increment(tr: Transaction) -> None:
            value = int(await tr.get(b"n") or b"0")
            await trio.lowlevel.checkpoint()
            tr.set(b"n", b"%d" % (value + 1))

        async def worker() -> None:
            for _ in range(20):
                await transact(engine, increment)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(worker)
        assert await value_of(engine, b"n") == b"100"

    async def test_flush_and_close(self, engine: Engine) -> None:
        await put(engine, k=b"1")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(engine.flush)
        await engine.close()
        await engine.close()
        with pytest.raises(FsError) as caught:
            engine.transaction()
        assert caught.value.code is Code.KV_UNAVAILABLE
