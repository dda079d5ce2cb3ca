"""The verbs without a kernel, on the real metadata operations and fake chunks."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pyfuse3
import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MIN_CHUNK_SIZE
from fireflyfs.net.messages import Method
from fireflyfs.rpc.meta_pb2 import CloseRequest
from fireflyfs.rpc.methods import MetaRpc
from tests.unit.fireflyfs.client.fakes import fails
from tests.unit.fuse_client.fakes import Bench, bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyfuse3 import EntryAttributes, ReaddirToken, SetattrFields

    from fireflyfs.rpc.methods import Rpc
    from fuse_client.operations import MountOperations

CTX = pyfuse3.RequestContext()
ROOT = pyfuse3.ROOT_INODE


@pytest.fixture
async def b() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


async def create(ops: MountOperations, name: bytes, flags: int = os.O_RDWR) -> tuple[int, int]:
    """(handle, inode) of a new file in the root."""
    info, entry = await ops.create(ROOT, name, stat.S_IFREG | 0o644, flags, CTX)
    return info.fh, entry.st_ino


async def set_attributes(ops: MountOperations, inode: int, **values: int) -> EntryAttributes:
    names = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    fields = {f"update_{n}": n in values or f"{n}_ns" in values for n in names}
    wanted = pyfuse3.EntryAttributes()
    for name, value in values.items():
        setattr(wanted, f"st_{name}", value)
    return await ops.setattr(
        inode, wanted, cast("SetattrFields", SimpleNamespace(**fields)), None, CTX
    )


async def listing(ops: MountOperations, handle: int, start: int, room: int) -> list[bytes]:
    """Names that readdir gives from ``start`` on, to a kernel with room for ``room`` entries."""
    names: list[bytes] = []

    def reply(token: object, name: bytes, entry: EntryAttributes, position: int) -> bool:
        if len(names) == room:
            return False
        names.append(name)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfuse3, "readdir_reply", reply)
        await ops.readdir(handle, start, cast("ReaddirToken", None))
    return names


async def test_a_write_shows_at_once_and_is_reported_at_close(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"f")
    await ops.write(handle, 3, b"hello")
    assert bytes(await ops.read(handle, 0, 100)) == b"\0\0\0hello"
    entry = await ops.getattr(inode, CTX)
    assert entry.st_size == 8
    assert "Report" not in b.meta.names()
    await ops.flush(handle)
    await ops.flush(handle)
    await ops.release(handle)
    assert b.meta.names().count("Report") == 1
    assert b.meta.names()[-1] == "Close"
    other = Bench(b.engine, b.peers).operations
    seen = await other.lookup(ROOT, b"f", CTX)
    assert (seen.st_size, seen.st_mtime_ns) == (8, entry.st_mtime_ns)


async def test_a_write_is_reported_within_a_second(b: Bench, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.operations.files.report_in_background)
        handle, inode = await create(b.operations, b"f")
        await trio.sleep(10)
        b.meta.failures["Report"] = [FsError(Code.UNREACHABLE, "away")]
        await b.operations.write(handle, 0, b"hello")
        await trio.sleep(1)
        assert b.meta.names().count("Report") == 1
        assert b.operations.inodes.get(inode).unreported is not None  # type: ignore[union-attr]
        await trio.sleep(1)
        assert b.operations.inodes.get(inode).unreported is None  # type: ignore[union-attr]
        other = Bench(b.engine, b.peers).operations
        assert (await other.lookup(ROOT, b"f", CTX)).st_size == 5
        nursery.cancel_scope.cancel()


async def test_a_failed_report_fails_the_close_and_stays_due(b: Bench) -> None:
    handle, _ = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"hello")
    b.meta.failures["Report"] = [FsError(Code.UNREACHABLE, "away")]
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await b.operations.flush(handle)
    assert caught.value.errno == errno.EIO
    await b.operations.flush(handle)
    other = Bench(b.engine, b.peers).operations
    assert (await other.lookup(ROOT, b"f", CTX)).st_size == 5


async def test_a_session_does_not_end_without_the_length(b: Bench) -> None:
    handle, _ = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"hello")
    b.meta.failures["Report"] = [FsError(Code.UNREACHABLE, "away")]
    with pytest.raises(pyfuse3.FUSEError):
        await b.operations.release(handle)
    assert b.meta.names()[-1] == "Close"
    other = Bench(b.engine, b.peers).operations
    assert (await other.lookup(ROOT, b"f", CTX)).st_size == 5


async def test_times_set_by_hand_stay(b: Bench) -> None:
    handle, inode = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"hello")
    await set_attributes(b.operations, inode, mtime_ns=6, atime_ns=5)
    await b.operations.flush(handle)
    await b.operations.release(handle)
    entry = await b.operations.getattr(inode, CTX)
    assert (entry.st_mtime_ns, entry.st_atime_ns, entry.st_size) == (6, 5, 5)


async def test_the_session_ends_with_the_last_handle(b: Bench) -> None:
    first, inode = await create(b.operations, b"f")
    second = (await b.operations.open(inode, os.O_RDONLY, CTX)).fh
    await b.operations.release(first)
    assert "Close" not in b.meta.names()
    await b.operations.release(second)
    assert b.meta.names().count("Close") == 1


async def test_every_open_waits_for_a_close_on_its_way(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, call, go = b.operations, b.meta.call, trio.Event()
    handle, inode = await create(ops, b"f")

    async def slow_to_close(rpc: Rpc[Any, Any], request: Any) -> Any:
        if rpc is MetaRpc.CLOSE:
            await go.wait()
        return await call(rpc, request)

    monkeypatch.setattr(b.meta, "call", slow_to_close)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ops.release, handle)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(ops.open, inode, os.O_RDONLY, CTX)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert b.meta.names()[-3:] == ["Close", "Open", "Open"]


async def test_sessions_that_were_ended_in_a_silence_are_renewed(b: Bench) -> None:
    ops, other = b.operations, Bench(b.engine, b.peers).operations
    kept, lost = [await create(ops, name) for name in (b"kept", b"lost")]
    for handle, inode in (kept, lost):
        await ops.write(handle, 0, b"hello")
        await ops.flush(handle)
        await b.meta.call(MetaRpc.CLOSE, CloseRequest(inode=inode))  # as if this mount had died
    await other.unlink(ROOT, b"lost", CTX)
    await ops.files.renew_sessions()
    await other.unlink(ROOT, b"kept", CTX)
    assert bytes(await ops.read(kept[0], 0, 5)) == b"hello"
    assert (await ops.getattr(kept[1], CTX)).st_nlink == 0
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await ops.read(lost[0], 0, 5)
    assert caught.value.errno == errno.ESTALE


async def test_a_file_that_is_forgotten_while_it_closes_and_opened_again(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, call, go = b.operations, b.meta.call, trio.Event()
    handle, inode = await create(ops, b"f")

    async def slow_to_close(rpc: Rpc[Any, Any], request: Any) -> Any:
        if rpc is MetaRpc.CLOSE:
            await go.wait()
        return await call(rpc, request)

    async def again() -> None:
        await ops.lookup(ROOT, b"f", CTX)
        again = (await ops.open(inode, os.O_RDWR, CTX)).fh
        await ops.write(again, 0, b"hello")

    monkeypatch.setattr(b.meta, "call", slow_to_close)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ops.release, handle)
        await trio.testing.wait_all_tasks_blocked()
        await ops.forget([(inode, 1)])
        nursery.start_soon(again)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    names = b.meta.names()
    assert names.index("Close") < names.index("Open")
    assert (await ops.getattr(inode, CTX)).st_size == 5


async def test_an_open_file_outlives_its_name(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"f")
    await ops.write(handle, 0, b"hello")
    await ops.unlink(ROOT, b"f", CTX)
    assert (await ops.getattr(inode, CTX)).st_nlink == 0
    await ops.write(handle, 5, b" there")
    await ops.fsync(handle, False)
    assert bytes(await ops.read(handle, 0, 50)) == b"hello there"
    await ops.release(handle)
    assert (await ops.getattr(inode, CTX)).st_nlink == 0  # the kernel has not forgotten it
    await ops.forget([(inode, 1)])
    with pytest.raises(pyfuse3.FUSEError):
        await ops.getattr(inode, CTX)


async def test_a_replaced_file_loses_its_name(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"old")
    await create(ops, b"new")
    await ops.rename(ROOT, b"new", ROOT, b"old", 0, CTX)
    assert ops.inodes.get(inode).inode.nlink == 0  # type: ignore[union-attr]
    await ops.release(handle)


async def test_pages_are_dropped_when_another_mount_wrote(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"f")
    await ops.write(handle, 0, b"hello")
    await ops.flush(handle)
    assert (await ops.open(inode, os.O_RDONLY, CTX)).keep_cache
    other = Bench(b.engine, b.peers).operations
    theirs = (await other.open((await other.lookup(ROOT, b"f", CTX)).st_ino, os.O_RDWR, CTX)).fh
    await other.write(theirs, 0, b"HELLO")
    await other.flush(theirs)
    assert not (await ops.open(inode, os.O_RDONLY, CTX)).keep_cache
    assert (await ops.open(inode, os.O_RDONLY, CTX)).keep_cache


async def test_chunks_are_cut_before_the_length(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"f")
    await ops.write(handle, 0, b"x" * (3 * MIN_CHUNK_SIZE))
    b.peers.failures[1, Method.UPDATE] = [fails(Code.NO_SPACE)] * 3
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await set_attributes(ops, inode, size=10)
    assert caught.value.errno == errno.ENOSPC
    assert "SetAttr" not in b.meta.names()
    assert (await set_attributes(ops, inode, size=10)).st_size == 10
    assert (await set_attributes(ops, inode, size=20)).st_size == 20
    assert bytes(await ops.read(handle, 0, 99)) == b"x" * 10 + bytes(10)


async def test_opening_with_trunc_empties_the_file(b: Bench) -> None:
    handle, inode = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"hello")
    await b.operations.open(inode, os.O_WRONLY | os.O_TRUNC, CTX)
    assert (await b.operations.getattr(inode, CTX)).st_size == 0
    assert not b.peers.chunks


async def test_a_write_beside_an_open_with_trunc_comes_before_or_after_it(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, call, go = b.operations, b.meta.call, trio.Event()
    handle, inode = await create(ops, b"f")

    async def slow_to_set(rpc: Rpc[Any, Any], request: Any) -> Any:
        reply = await call(rpc, request)
        if rpc is MetaRpc.SET_ATTR:
            await go.wait()
        return reply

    monkeypatch.setattr(b.meta, "call", slow_to_set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ops.open, inode, os.O_WRONLY | os.O_TRUNC, CTX)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ops.write, handle, 0, b"old")
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    length = (await ops.getattr(inode, CTX)).st_size
    await set_attributes(ops, inode, size=3)
    seen = bytes(await ops.read(handle, 0, 3))
    assert (length, seen) in ((3, b"old"), (0, bytes(3)))


async def test_a_truncation_sees_what_another_mount_wrote(b: Bench) -> None:
    handle, inode = await create(b.operations, b"f")
    other = Bench(b.engine, b.peers).operations
    theirs = (await other.open((await other.lookup(ROOT, b"f", CTX)).st_ino, os.O_RDWR, CTX)).fh
    await other.write(theirs, 0, b"x" * 100)
    await other.flush(theirs)
    await set_attributes(b.operations, inode, size=10)
    await set_attributes(b.operations, inode, size=100)
    assert bytes(await b.operations.read(handle, 0, 100)) == b"x" * 10 + bytes(90)


async def test_a_lost_race_to_create_opens_the_file_that_won(b: Bench) -> None:
    await create(b.operations, b"f")
    _, inode = await create(Bench(b.engine, b.peers).operations, b"f")
    assert inode == (await b.operations.lookup(ROOT, b"f", CTX)).st_ino
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await create(b.operations, b"f", os.O_EXCL | os.O_RDWR)
    assert caught.value.errno == errno.EEXIST


async def test_fsync_reaches_the_media_and_then_the_metadata(b: Bench) -> None:
    handle, _ = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"x")
    await b.operations.fsync(handle, True)
    assert len(b.peers.flushed) == 1
    name, request = b.meta.calls[-1]
    assert (name, request.durable, request.length) == ("Report", True, 1)


async def test_fsync_covers_what_was_written_before_the_file_was_forgotten(b: Bench) -> None:
    ops = b.operations
    handle, inode = await create(ops, b"f")
    await ops.write(handle, 0, b"x" * (MIN_CHUNK_SIZE + 1))
    await ops.flush(handle)
    await ops.release(handle)
    await ops.forget([(inode, 1)])
    await ops.lookup(ROOT, b"f", CTX)
    again = (await ops.open(inode, os.O_RDONLY, CTX)).fh
    await ops.fsync(again, True)
    await ops.fsync(again, True)
    assert len(b.peers.flushed) == 2


async def test_a_synchronous_write_is_an_fsync(b: Bench) -> None:
    handle, _ = await create(b.operations, b"f", os.O_WRONLY | os.O_SYNC)
    await b.operations.write(handle, 0, b"x")
    assert len(b.peers.flushed) == 1
    assert b.meta.calls[-1][1].durable


async def test_the_kernels_question_before_each_write_is_answered_here(b: Bench) -> None:
    _, inode = await create(b.operations, b"f")
    other = Bench(b.engine, b.peers)
    ops = other.operations
    await ops.lookup(ROOT, b"f", CTX)
    for mount in (b.operations, ops, ops):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await mount.getxattr(inode, b"security.capability", CTX)
        assert caught.value.errno == errno.ENODATA
    assert b.meta.names().count("GetXattr") == 0, "who made the file knows"
    assert other.meta.names().count("GetXattr") == 1
    await ops.setxattr(inode, b"security.capability", b"caps", CTX)
    assert await ops.getxattr(inode, b"security.capability", CTX) == b"caps"


async def test_a_listing_has_every_name_once(b: Bench) -> None:
    ops = b.operations
    names = [b"%04d" % i for i in range(700)]  # more than a page
    for name in names:
        await ops.mkdir(ROOT, name, 0o755, CTX)
    handle = await ops.opendir(ROOT, CTX)
    seen: list[bytes] = []
    while got := await listing(ops, handle, len(seen), room=99):
        seen += got
        if len(seen) == 99:
            for name in names[:300]:  # some seen, some not yet
                await ops.rmdir(ROOT, name, CTX)
    assert seen[:2] == [b".", b".."]
    assert len(set(seen)) == len(seen)
    assert set(names[300:]) <= set(seen)
    again = await listing(ops, handle, 0, room=5)
    assert again == [b".", b"..", *names[300:303]]
    assert await listing(ops, handle, 4, room=2) == names[302:304]
    await ops.releasedir(handle)


async def test_rename_takes_no_foreign_flags(b: Bench) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await b.operations.rename(ROOT, b"a", ROOT, b"b", 4, CTX)
    assert caught.value.errno == errno.EINVAL


async def test_unmounting_reports_and_ends_sessions(b: Bench) -> None:
    handle, _ = await create(b.operations, b"f")
    await b.operations.write(handle, 0, b"x")
    await b.operations.files.finish(5)
    assert b.meta.names()[-2:] == ["Report", "Close"]
