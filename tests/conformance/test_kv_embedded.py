"""The embedded engine: the suite, several processes, kill -9, and files that are not ours."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.kv import embedded, embedded_sync
from fireflyfs.kv.embedded import EmbeddedEngine, open_embedded
from fireflyfs.kv.embedded_file import FILE_NAME, Connection
from fireflyfs.kv.retry import transact
from fireflyfs.limits import MIB
from tests.conformance.kv_model import replay, run_interleaved
from tests.conformance.kv_suite import KvSuite, content, put, refused, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fireflyfs.kv.base import Engine, Transaction

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = await open_embedded(directory)
    try:
        yield engine
    finally:
        await engine.close()


def start_process(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.kv_process", str(directory), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


class TestEmbedded(KvSuite):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Engine]:
        async with opened(tmp_path / "kv") as engine:
            yield engine

    @pytest.mark.parametrize("seed", range(10))
    async def test_random_transactions_are_serializable(self, engine: Engine, seed: int) -> None:
        rng = random.Random(seed)
        committed = await run_interleaved(engine, rng, 60)
        assert await content(engine) == replay(committed)
        assert len(committed) > 15

    async def test_two_engines_meet_on_one_directory(self, tmp_path: Path, engine: Engine) -> None:
        async with opened(tmp_path / "kv") as other:
            await put(engine, k=b"1")
            assert await value_of(other, b"k") == b"1"
            tr = engine.transaction()
            await tr.get(b"k")
            tr.set(b"k", b"2")
            await put(other, k=b"3")
            await refused(Code.KV_CONFLICT, tr.commit())
            wait = await engine.transaction().watch(b"k")
            await put(other, k=b"4")
            with trio.fail_after(5):
                await wait()

    async def test_lock_of_another_is_waited_for_without_blocking(
        self, tmp_path: Path, engine: Engine
    ) -> None:
        await put(engine, k=b"1")
        writer = apsw.Connection(str(tmp_path / "kv" / FILE_NAME))
        writer.execute("BEGIN IMMEDIATE")
        done = trio.Event()

        async def write() -> None:
            await put(engine, k=b"2")
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for _ in range(20):
                await trio.sleep(0.001)
                assert await value_of(engine, b"k") == b"1"
            assert not done.is_set()
            writer.execute("ROLLBACK")
        writer.close()
        assert await value_of(engine, b"k") == b"2"

    async def test_forgotten_transaction_loses_its_snapshot(
        self, engine: EmbeddedEngine, autojump_clock: trio.testing.MockClock
    ) -> None:
        forgotten = engine.transaction()
        await forgotten.get(b"k")
        await trio.sleep(6)
        await put(engine, k=b"1")
        await value_of(engine, b"k")
        assert not engine._reading
        await refused(Code.KV_TOO_OLD, forgotten.get(b"k"))

    async def test_log_of_commits_is_trimmed(
        self, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = engine.transaction()
        await old.get(b"k")
        old.set(b"k", b"")
        now = 1.0
        monkeypatch.setattr("fireflyfs.kv.embedded_file.time.monotonic", lambda: now)
        for number in range(1000):
            now = 1.0 + number
            await put(engine, other=b"")
        reader = apsw.Connection(str(tmp_path / "kv" / FILE_NAME))
        assert 0 < reader.execute("SELECT count(*) FROM commits").get < 100
        reader.close()
        await refused(Code.KV_TOO_OLD, old.commit())

    async def test_failed_sync_ends_all_promises(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        await put(engine, k=b"1")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            await refused(Code.KV_UNAVAILABLE, engine.flush())
        with pytest.raises(FsError, match="cannot sync"):
            engine.transaction()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await put(engine, a=b"1", b=b"2")
    async with opened(tmp_path) as engine:
        assert await content(engine) == {b"a": b"1", b"b": b"2"}
        tr = engine.transaction()
        tr.set(b"c", b"")
        assert await tr.commit() > 2
    assert not [thread for thread in threading.enumerate() if thread.name == "kv-sync"]


async def test_wal_is_synced_and_moved_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    monkeypatch.setattr(embedded_sync, "SYNC_SECONDS", 0.02)
    monkeypatch.setattr(embedded_sync, "CHECKPOINT_BYTES", 10_000)
    monkeypatch.setattr(embedded_sync, "RESTART_BYTES", 20_000)
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.set())
    async with opened(tmp_path) as engine:
        main_file, wal = tmp_path / FILE_NAME, tmp_path / f"{FILE_NAME}-wal"
        await put(engine, k=bytes(50_000))
        with trio.fail_after(10):
            while wal.stat().st_size or not synced.is_set():  # noqa: ASYNC110 (a thread's doing)
                await trio.sleep(0.01)
        assert main_file.stat().st_size > 50_000
        assert await value_of(engine, b"k") == bytes(50_000)


async def test_wal_is_kept_small_where_space_is_scarce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_sync, "SYNC_SECONDS", 0.02)
    monkeypatch.setattr(embedded_sync, "SCARCE_BYTES", 1 << 62)
    monkeypatch.setattr(embedded_sync, "SCARCE_CHECKPOINT_BYTES", 10_000)
    async with opened(tmp_path) as engine:
        wal = tmp_path / f"{FILE_NAME}-wal"
        await put(engine, k=bytes(50_000))
        with trio.fail_after(10):
            while wal.stat().st_size:  # noqa: ASYNC110 (a thread's doing)
                await trio.sleep(0.01)
        assert await value_of(engine, b"k") == bytes(50_000)


async def test_there_is_room_until_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as engine:
        for free, total, room in (
            (MIB, 64 * MIB, True),
            (MIB - 1, 64 * MIB, False),
            (128 * MIB, 1 << 50, True),
            (128 * MIB - 1, 1 << 50, False),
        ):
            monkeypatch.setattr(embedded, "free_and_total", lambda _, now=(free, total): now)
            assert engine.has_room() is room


async def test_two_processes_count_exactly(tmp_path: Path) -> None:
    processes = [start_process(tmp_path, "count", "1000") for _ in range(2)]
    counted = attempts = 0

    async def increment(tr: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        tr.set(b"n", b"%d" % (int(await tr.get(b"n") or b"0") + 1))

    async with opened(tmp_path) as engine:
        while any(process.poll() is None for process in processes):
            await transact(engine, increment, timeout=60)
            counted += 1
        for process in processes:
            assert process.wait() == 0
            assert process.stdout is not None
            process.stdout.close()
        assert await value_of(engine, b"n") == b"%d" % (counted + 2000)
    assert attempts > counted, "the processes never met"


async def test_kill_in_mid_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(3):
        with start_process(tmp_path, "fill") as process:
            assert process.stdout is not None
            for _ in range(200):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split(b"\n")[:-1]
            acknowledged = int(rest[-1]) if rest else acknowledged
        async with opened(tmp_path) as engine:
            found = await content(engine)
            assert all(found[b"k%d" % n] == bytes(2000) for n in range(acknowledged + 1))
            tr = engine.transaction()
            tr.clear_range(b"", b"\xff")
            await tr.commit()
            # The total is written with each key: one commit may be on its way, none by halves.
            assert int(found[b"total"]) == len(found) - 1
            assert int(found[b"total"]) - (acknowledged + 1) in (0, 1)


async def test_torn_log_loses_its_tail_only(tmp_path: Path) -> None:
    async with opened(tmp_path / "whole") as engine:
        for number in range(50):
            await put(engine, total=b"%d" % (number + 1), **{f"k{number}": bytes(number * 50)})
        # A copy while it is open: nothing has been moved out of the WAL yet.
        files = {
            p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir() if "-shm" not in p.name
        }
    rng = random.Random(5)
    wal = files[f"{FILE_NAME}-wal"]
    totals = set()
    for attempt in range(20):
        torn = tmp_path / f"torn{attempt}"
        torn.mkdir()
        (torn / FILE_NAME).write_bytes(files[FILE_NAME])
        (torn / f"{FILE_NAME}-wal").write_bytes(wal[: rng.randrange(len(wal) // 4, len(wal))])
        async with opened(torn) as engine:
            found = await content(engine)
            total = int(found.pop(b"total"))
            assert found == {b"k%d" % n: bytes(n * 50) for n in range(total)}
            await put(engine, k=b"goes on")
        totals.add(total)
    assert len(totals) > 5


async def test_full_disk_is_no_space_and_nothing_happened(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await put(engine, k=b"1")
        connection = engine._idle[-1]
        pages = connection._db.execute("PRAGMA page_count").get
        connection._db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
        tr = engine.transaction()
        tr.set(b"k", b"2")
        tr.set(b"big", bytes(90_000))
        await refused(Code.NO_SPACE, tr.commit())
        assert await content(engine) == {b"k": b"1"}
        await put(engine, k=b"3")
        assert await value_of(engine, b"k") == b"3"


@pytest.mark.parametrize("snapshot", [True, False])
async def test_failed_commit_has_an_unknown_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: bool
) -> None:
    def broken(connection: Connection) -> None:
        raise apsw.IOError("disk I/O error")

    async with opened(tmp_path) as engine:
        tr = engine.transaction()
        if snapshot:
            await tr.get(b"k")
        tr.set(b"k", b"1")
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "commit", broken)
            patch.setattr(Connection, "rollback", broken)
            await refused(Code.KV_UNKNOWN_RESULT, tr.commit())
        assert await value_of(engine, b"k") is None
        await put(engine, k=b"2")


async def refused_to_open(directory: Path, match: str) -> None:
    with pytest.raises(FsError, match=match) as caught:
        await open_embedded(directory)
    assert caught.value.code is Code.CONFIG
    assert "\n" not in str(caught.value)


async def test_foreign_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"not a database at all " * 500)
    await refused_to_open(tmp_path, "not a sound store")
    assert file.read_bytes() == b"not a database at all " * 500
    file.unlink()
    foreign = apsw.Connection(str(file))
    foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    before = file.read_bytes()
    await refused_to_open(tmp_path, "not a store of this program")
    assert file.read_bytes() == before


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    newer = apsw.Connection(str(tmp_path / FILE_NAME))
    newer.execute("PRAGMA user_version = 99").fetchall()
    newer.close()
    await refused_to_open(tmp_path, "format 99")


async def test_damaged_file_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await put(engine, k=b"1")
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:5000])
    await refused_to_open(tmp_path, "not a sound store")


async def test_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    await refused_to_open(tmp_path / "file", "cannot make a store")
    await refused_to_open(tmp_path / "file" / "below", "cannot make a store")
    (tmp_path / FILE_NAME).mkdir()
    await refused_to_open(tmp_path, "cannot open the store")
