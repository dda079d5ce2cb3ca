"""The engine on FoundationDB: the suite on the real binding over a fake native client, and on a
real server where ``FIREFLYFS_FDB_CLUSTER`` names a cluster file."""

from __future__ import annotations

import builtins
import os
import random
import re
import secrets
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from fireflyfs.cli import preflight
from fireflyfs.cli.__main__ import main
from fireflyfs.errors import Code, FsError
from fireflyfs.kv import fdb_binding
from fireflyfs.kv.fdb import FdbEngine, open_fdb
from fireflyfs.kv.fdb_place import Place
from fireflyfs.kv.open import open_engine
from fireflyfs.kv.retry import transact
from fireflyfs.supervisor import create
from fireflyfs.supervisor.directory import MAIN_MOUNT, ClusterDirectory
from tests.conformance import fake_fdb
from tests.conformance.kv_model import replay, run_interleaved
from tests.conformance.kv_suite import KvSuite, content, put, refused, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fireflyfs.kv.base import Engine, Transaction
    from tests.conformance.fake_fdb_store import Cluster

REAL = os.environ.get("FIREFLYFS_FDB_CLUSTER", "")


class FdbSuite(KvSuite):
    @pytest.mark.parametrize("seed", range(10))
    async def test_random_transactions_are_serializable(self, engine: Engine, seed: int) -> None:
        committed = await run_interleaved(engine, random.Random(seed), 60)
        assert await content(engine) == replay(committed)
        assert len(committed) > 15

    async def test_reads_go_on_over_versionstamped_keys(self, engine: Engine) -> None:
        await put(engine, **{"feed/": b"old"})
        tr = engine.transaction()
        tr.set_versionstamped_key(b"feed/", b"new")
        assert await tr.get_range(b"feed/", b"feed0") == [(b"feed/", b"old")]
        await tr.commit()
        assert sorted((await content(engine)).values()) == [b"new", b"old"]

    async def test_get_many(self, engine: Engine) -> None:
        await put(engine, **{f"k{n}": b"%d" % n for n in range(30)})
        tr = engine.transaction()
        wanted = [b"k%d" % n for n in range(-1, 31)]
        found = await tr.get_many(wanted)
        assert found == [None, *(b"%d" % n for n in range(30)), None]
        tr.set(b"other", b"")
        await put(engine, k7=b"")
        await refused(Code.KV_CONFLICT, tr.commit())

    async def test_watch_itself_does_not_conflict(self, engine: Engine) -> None:
        tr = engine.transaction()
        await tr.watch(b"k")
        tr.set(b"other", b"")
        await put(engine, k=b"1")
        await tr.commit()

    async def test_forgotten_watch_can_be_cancelled(self, engine: Engine) -> None:
        tr = engine.transaction()
        wait = await tr.watch(b"k")
        await tr.commit()
        with trio.move_on_after(0.2) as scope:
            await wait()
        assert scope.cancelled_caught
        await put(engine, k=b"1")

    async def test_long_range_by_pages(self, engine: Engine) -> None:
        keys = [b"%04d" % n for n in range(1000)]
        tr = engine.transaction()
        for key in keys:
            tr.set(key, bytes(200))
        await tr.commit()
        for reverse in (False, True):
            wanted = sorted(keys, reverse=reverse)
            tr = engine.transaction()
            assert [k for k, _ in await tr.get_range(b"", b"\xff", reverse=reverse)] == wanted
            found = await tr.get_range(b"", b"\xff", limit=700, reverse=reverse, snapshot=True)
            assert [k for k, _ in found] == wanted[:700]
            tr.cancel()


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    file = tmp_path / "fdb.cluster"
    file.write_text("fake:fake@127.0.0.1:4500\n")
    return file


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> fake_fdb.FakeClient:
    try:
        binding, client = fake_fdb.load()
    except ImportError:
        pytest.skip("the package foundationdb is not installed (pip install -e '.[dev]')")
    monkeypatch.setattr(fdb_binding, "load", lambda: cast("fdb_binding.Binding", binding))
    return client


@pytest.fixture
async def fake(client: fake_fdb.FakeClient, cluster_file: Path) -> AsyncIterator[Engine]:
    engine = await open_engine(f"fdb:{cluster_file}")
    cluster_of(client, cluster_file).clock = trio.current_time
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def cluster(client: fake_fdb.FakeClient, cluster_file: Path, fake: Engine) -> Cluster:
    return cluster_of(client, cluster_file)


def cluster_of(client: fake_fdb.FakeClient, file: Path) -> Cluster:
    return client.clusters[os.fsencode(file)]


class TestFake(FdbSuite):
    @pytest.fixture
    async def engine(self, fake: Engine) -> Engine:
        return fake


@pytest.mark.skipif(not REAL, reason="FIREFLYFS_FDB_CLUSTER names no cluster file")
class TestServer(FdbSuite):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        place = Place(Path(REAL).absolute(), f"test-{secrets.token_hex(8)}")
        engine = await open_fdb(place)
        try:
            yield engine
        finally:
            await engine.close()
            cleaner = await open_fdb(place)
            await transact(cleaner, _clear_all)
            await cleaner.close()

    async def test_too_old(self, engine: Engine) -> None:  # type: ignore[override]
        """In real time: it is the servers' clock that counts."""
        await self.check_too_old(engine)


async def _clear_all(tr: Transaction) -> None:
    tr.clear_range(b"", b"\xff")


async def test_namespaces_are_apart(fake: Engine, cluster_file: Path, cluster: Cluster) -> None:
    other = await open_engine(f"fdb:{cluster_file}?prefix=fireflyfs-2")
    await put(fake, k=b"1")
    await put(other, k=b"2")
    assert await content(fake) == {b"k": b"1"}
    assert await content(other) == {b"k": b"2"}
    assert set(cluster.states[-1][2]) == {b"\x02fireflyfs\x00k", b"\x02fireflyfs-2\x00k"}
    await transact(fake, _clear_all)
    assert await content(other) == {b"k": b"2"}


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("code", [1021, 1031, 1039])
async def test_unknown_results(fake: Engine, cluster: Cluster, code: int, happens: bool) -> None:
    cluster.next_errors.append((code, happens))
    tr = fake.transaction()
    tr.set(b"k", b"1")
    await refused(Code.KV_UNKNOWN_RESULT, tr.commit())
    assert await value_of(fake, b"k") == (b"1" if happens else None)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1007, Code.KV_TOO_OLD),
        (1009, Code.KV_UNAVAILABLE),
        (1020, Code.KV_CONFLICT),
        (1037, Code.KV_UNAVAILABLE),
        (1038, Code.KV_UNAVAILABLE),
        (1051, Code.KV_UNAVAILABLE),
        (2101, Code.KV_LIMIT),
        (4100, Code.INTERNAL),
    ],
)
async def test_errors_of_the_client(
    fake: Engine, cluster: Cluster, number: int, code: Code
) -> None:
    cluster.next_errors.append((number, False))
    tr = fake.transaction()
    tr.set(b"k", b"1")
    with pytest.raises(FsError, match=rf"FoundationDB, committing: .*\({number}\)") as caught:
        await tr.commit()
    assert caught.value.code is code


async def test_increments_survive_unknown_results(fake: Engine, cluster: Cluster) -> None:
    cluster.next_errors.extend([(1021, True), (0, True), (1021, False), (1020, False)] * 3)

    async def worker(name: int) -> None:
        for number in range(5):
            record = b"done/%d/%d" % (name, number)

            async def increment(tr: Transaction, record: bytes = record) -> None:
                if await tr.get(record) is not None:
                    return
                tr.set(b"n", b"%d" % (int(await tr.get(b"n") or b"0") + 1))
                tr.set(record, b"")

            await transact(fake, increment)

    async with trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(worker, name)
    assert await value_of(fake, b"n") == b"20"
    assert not cluster.next_errors


async def test_cluster_that_is_away(fake: Engine, cluster: Cluster) -> None:
    tr = fake.transaction()
    tr.set(b"k", b"1")
    wait = await fake.transaction().watch(b"k")
    cluster.is_down = True
    await refused(Code.KV_UNAVAILABLE, fake.transaction().get(b"k"))
    await refused(Code.KV_UNAVAILABLE, fake.transaction().get_many([b"k", b"l"]))
    await refused(Code.KV_UNAVAILABLE, fake.transaction().get_range(b"", b"\xff"))
    await refused(Code.KV_UNKNOWN_RESULT, tr.commit())
    cluster.is_down = False
    await put(fake, k=b"2")
    with trio.fail_after(5):
        await wait()


async def test_waiting_is_cancelled_and_blocks_nobody(fake: Engine, cluster: Cluster) -> None:
    cluster.timeout = 0
    cluster.is_down = True
    tr = fake.transaction()
    with trio.move_on_after(0.05) as scope:
        await tr.get(b"k")
    assert scope.cancelled_caught
    cluster.is_down = False
    tr.cancel()
    await refused(Code.INVALID, tr.get(b"k"))


async def test_callbacks_come_from_another_thread(
    fake: Engine, client: fake_fdb.FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    settled = fake_fdb.FakeFuture.set

    def note(self: fake_fdb.FakeFuture, code: int, value: object = None) -> None:
        seen.append(threading.get_ident())
        settled(self, code, value)

    monkeypatch.setattr(fake_fdb.FakeFuture, "set", note)
    await put(fake, k=b"1")
    assert seen
    assert threading.get_ident() not in seen


def test_callback_after_the_end_of_the_run_is_harmless(
    client: fake_fdb.FakeClient, cluster_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def leave_one_waiting() -> Any:
        engine = await open_engine(f"fdb:{cluster_file}")
        cluster = cluster_of(client, cluster_file)
        cluster.clock = trio.current_time
        cluster.timeout, cluster.is_down = 0, True
        assert isinstance(engine, FdbEngine)
        future = engine.create().get(b"k")
        with trio.move_on_after(0.01):
            await fdb_binding.settle(future)
        return future

    future = trio.run(leave_one_waiting)
    future.cancel()
    trio.run(trio.sleep, 0.01)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("fdb:", "a store on FoundationDB is"),
        ("fdb:etc/fdb.cluster", "a store on FoundationDB is"),
        ("fdb:/f?name=x", "a store on FoundationDB is"),
        ("fdb:/f?prefix=", "a namespace's prefix"),
        ("fdb:/f?prefix=a/b", "a namespace's prefix"),
        ("fdb:/no/such/fdb.cluster", "cannot read the cluster file"),
    ],
)
async def test_addresses_that_cannot_be(url: str, match: str) -> None:
    with pytest.raises(FsError, match=match) as caught:
        await open_engine(url)
    assert caught.value.code is Code.CONFIG


async def test_file_that_is_no_cluster_file(client: fake_fdb.FakeClient, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("nonsense")
    with pytest.raises(FsError, match=r"cannot use .*\(2104\)") as caught:
        await open_engine(f"fdb:{tmp_path}/f")
    assert caught.value.code is Code.CONFIG


def make_cluster(root: Path, kv: str | None = None) -> ClusterDirectory:
    return create.create(root, nodes=1, replicas=1, chunk_size=1 << 20, kv=kv)


def test_clusters_get_namespaces_of_their_own(
    client: fake_fdb.FakeClient, cluster_file: Path, tmp_path: Path
) -> None:
    stores = [make_cluster(tmp_path / n, f"fdb:{cluster_file}").cluster.kv for n in "ab"]
    assert len(set(stores)) == 2
    assert all(re.fullmatch(rf"fdb:{cluster_file}\?prefix=fireflyfs-\w+", kv) for kv in stores)
    given = make_cluster(tmp_path / "c", f"fdb:{cluster_file}?prefix=mine").cluster.kv
    assert given == f"fdb:{cluster_file}?prefix=mine"
    trio.run(preflight.check_store, given)
    trio.run(fill, given)
    with pytest.raises(FsError, match="holds a namespace already"):
        trio.run(preflight.check_store, given)
    for refused_here in ("memory:", "fdb:", "embedded:x"):
        with pytest.raises(FsError):
            make_cluster(tmp_path / "d", refused_here)
    assert not (tmp_path / "d").exists()


async def fill(url: str) -> None:
    engine = await open_engine(url)
    await put(engine, **{f"k{n:04}": b"%d" % n for n in range(1200)})
    await engine.close()


async def content_at(url: str) -> dict[bytes, bytes]:
    engine = await open_engine(url)
    try:
        return await content(engine)
    finally:
        await engine.close()


def test_namespace_moves_to_another_engine_and_back(
    client: fake_fdb.FakeClient, cluster_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cluster"
    made = make_cluster(root)
    made.add_mount(tmp_path / "mnt", MAIN_MOUNT)
    first = made.cluster.kv
    trio.run(fill, first)
    assert main(["kv", "copy", str(root), f"fdb:{cluster_file}", "--switch"]) == 0
    moved = ClusterDirectory.open(root)
    assert moved.cluster.kv == str(Place(cluster_file, f"fireflyfs-{made.cluster.cluster_id}"))
    texts = [file.read_text() for file in (root / "config").rglob("*.toml")]
    assert sum(moved.cluster.kv in text for text in texts) == 5
    assert not [text for text in texts if first in text]
    assert trio.run(content_at, moved.cluster.kv) == trio.run(content_at, first)
    goal = f"embedded:{tmp_path}/kv2"
    assert main(["kv", "copy", str(root), goal, "--switch"]) == 0
    assert ClusterDirectory.open(root).cluster.kv == goal
    assert trio.run(content_at, goal) == trio.run(content_at, first)
    assert main(["kv", "copy", first, goal, "--force", "--switch"]) == 2


@pytest.fixture
def no_fdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "fdb":
            raise ImportError(name)
        return real(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        yield


async def test_missing_binding(no_fdb: None, cluster_file: Path) -> None:
    with pytest.raises(FsError, match=r"pip install 'fireflyfs\[fdb\]'") as caught:
        await open_engine(f"fdb:{cluster_file}")
    assert caught.value.code is Code.CONFIG


async def test_missing_native_client(cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unusable:
        @staticmethod
        def api_version(version: int) -> None:
            raise Exception("Unable to locate the FoundationDB API shared library!")

    monkeypatch.setitem(sys.modules, "fdb", Unusable)
    with pytest.raises(FsError, match="install its native client") as caught:
        await open_engine(f"fdb:{cluster_file}")
    assert caught.value.code is Code.CONFIG
    assert "\n" not in str(caught.value)
