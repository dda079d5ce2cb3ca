"""Rot, full disks, failing disks, and directories that are not ours."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.checksum import checksums
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import KIB, MIB
from fireflyfs.net.messages import UpdateKind
from storage_service.store.blocks import BlockFiles
from storage_service.store.metadata import Metadata, chunk_key
from storage_service.store.store import ChunkStore
from storage_service.store.types import StoreIdentity
from tests.unit.storage_service.store.driver import IDENTITY, WHOLE, chunk, opened, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage_service.store.record import Location


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


async def _code(directory: Path, identity: StoreIdentity = IDENTITY) -> Code:
    async with trio.open_nursery() as nursery:
        with pytest.raises(FsError) as error:
            await ChunkStore.open(directory, identity, nursery=nursery)
    return error.value.code


async def test_rot_is_named_and_costs_one_sub_block(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        data = os.urandom(MIB)
        await put(store, 0, 1, 0, data)
        _flip(tmp_path / "blocks" / f"{MIB}.blocks", 40 * KIB)
        with pytest.raises(FsError, match=f"{chunk(0).hex()} at offset {32 * KIB}") as error:
            await store.read(chunk(0), 47 * KIB, 4 * KIB)
        assert error.value.code is Code.CHECKSUM
        with pytest.raises(FsError):
            await store.read(chunk(0), 0, WHOLE)
        assert (await store.read(chunk(0), 48 * KIB, 4 * KIB)).data == data[48 * KIB :][: 4 * KIB]
        with pytest.raises(FsError):  # rot is not copied under a new sum
            await put(store, 0, 2, 33 * KIB, b"x")
        await put(store, 0, 2, 32 * KIB, b"y" * 16 * KIB)
        expected = data[: 32 * KIB] + b"y" * 16 * KIB + data[48 * KIB :]
        assert (await store.read(chunk(0), 0, WHOLE)).data == expected
        assert store.failure is None


async def test_shortened_and_missing_data_files(tmp_path: Path) -> None:
    path = tmp_path / "blocks" / f"{64 * KIB}.blocks"
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, bytes(range(256)) * 256)
        os.truncate(path, 20 * KIB)
        with pytest.raises(FsError, match=f"offset {16 * KIB}"):
            await store.read(chunk(0), 0, WHOLE)
    assert await _code(tmp_path) is Code.TARGET_FAILED
    path.unlink()
    assert await _code(tmp_path) is Code.TARGET_FAILED


async def test_damaged_records(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"data")
    metadata = Metadata(tmp_path / "metadata")
    raw = metadata.get(chunk_key(chunk(0)))
    assert raw is not None
    metadata.write([(chunk_key(chunk(1)), raw)])
    metadata.close()
    assert await _code(tmp_path) is Code.TARGET_FAILED


async def test_data_that_is_not_what_was_sent_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"data")
        with pytest.raises(FsError) as error:
            await store.prepare(
                chunk(0),
                kind=UpdateKind.WRITE,
                version=2,
                offset=0,
                length=4,
                data=memoryview(b"dada"),
                checksums=checksums(0, memoryview(b"data")),
                chain_version=1,
                tags=(),
            )
        assert error.value.code is Code.CHECKSUM
        meta = store.meta(chunk(0))
        assert meta is not None
        assert (meta.version, meta.pending_version) == (1, 0)


async def test_a_directory_belongs_to_one_target_and_one_process(tmp_path: Path) -> None:
    async with opened(tmp_path / "s"):
        assert await _code(tmp_path / "s") is Code.CONFIG
    assert await _code(tmp_path / "s", StoreIdentity("other", 7)) is Code.CONFIG
    assert await _code(tmp_path / "s", StoreIdentity("test-cluster", 8)) is Code.CONFIG
    identity = json.loads((tmp_path / "s" / "identity.json").read_text())
    identity["store"] = "00000000-0000-0000-0000-000000000001"
    (tmp_path / "s" / "identity.json").write_text(json.dumps(identity))
    assert await _code(tmp_path / "s") is Code.CONFIG
    (tmp_path / "s" / "identity.json").unlink()
    assert await _code(tmp_path / "s") is Code.CONFIG
    (tmp_path / "file").write_text("")
    assert await _code(tmp_path / "file") is Code.CONFIG


async def test_commits_are_idempotent_and_know_their_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.commit(chunk(0), 1, 1)
        await put(store, 0, 1, 0, b"data")
        await store.commit(chunk(0), 1, 1)
        with pytest.raises(FsError) as error:
            await store.commit(chunk(0), 2, 1)
        assert error.value.code is Code.VERSION_GAP


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_write_that_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"a" * 100_000)
        used = store.usage().used

        def refused(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", refused)
            for offset in (0, 100_000):
                with pytest.raises(FsError) as error:
                    await put(store, 0, 2, offset, b"b" * 50_000)
        full = number == errno.ENOSPC
        assert error.value.code is (Code.NO_SPACE if full else Code.TARGET_FAILED)
        assert store.usage().used == used
        assert (await store.read(chunk(0), 0, WHOLE)).data == b"a" * 100_000
        if full:
            assert store.failure is None
            await put(store, 0, 2, 0, b"b" * 50_000)
        else:
            assert store.failure is not None
            with pytest.raises(FsError, match="has failed"):
                await put(store, 1, 1, 0, b"b")
            with pytest.raises(FsError, match="has failed"):
                await store.flush()


async def test_a_sync_that_fails_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"a")

        def refused(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", refused)
        with pytest.raises(FsError) as error:
            await store.flush()
        assert error.value.code is Code.TARGET_FAILED
        assert store.failure is not None
        assert bytes((await store.read(chunk(0), 0, 9)).data) == b"a"


async def test_a_read_that_fails_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"a")

        def refused(*_: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "preadv", refused)
        with pytest.raises(FsError) as error:
            await store.read(chunk(0), 0, 1)
        assert error.value.code is Code.TARGET_FAILED
        assert store.failure is not None


async def test_small_overwrites_write_little_and_space_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, os.urandom(4 * MIB))
        await store.flush()
        written = 0
        write, log = BlockFiles.write, Metadata.write

        def counted(
            self: BlockFiles, location: Location, offset: int, buffers: list[memoryview]
        ) -> None:
            nonlocal written
            written += sum(map(len, buffers))
            write(self, location, offset, buffers)

        def counted_log(self: Metadata, puts: list[tuple[bytes, bytes | None]]) -> None:
            nonlocal written
            written += sum(len(key) + len(value or b"") for key, value in puts)
            log(self, puts)

        monkeypatch.setattr(BlockFiles, "write", counted)
        monkeypatch.setattr(Metadata, "write", counted_log)
        for version in range(2, 102):
            await put(store, 0, version, version * 4 * KIB, b"x" * 4 * KIB)
        await store.flush()
        await store.flush()
        assert written / 100 < 20 * KIB
        await store.prepare_and_commit(
            chunk(0),
            kind=UpdateKind.REMOVE,
            version=200,
            offset=0,
            length=0,
            data=None,
            checksums=(),
            chain_version=1,
            tags=(),
        )
        assert store.meta(chunk(0)) is None
        await store.flush()
        assert (store.usage().used, store.usage().chunks) == (0, 0)


async def test_removing_gives_space_back_to_the_file_system(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for index in range(10):
            await put(store, index, 1, 0, bytes(8 * MIB))
        blocks = tmp_path / "blocks" / f"{8 * MIB}.blocks"
        assert blocks.stat().st_blocks * 512 >= 80 * MIB
        for index in range(10):
            await store.prepare_and_commit(
                chunk(index),
                kind=UpdateKind.TRUNCATE,
                version=2,
                offset=0,
                length=100,
                data=None,
                checksums=(),
                chain_version=1,
                tags=(),
            )
        await store.flush()
        await store.flush()
        assert blocks.stat().st_blocks * 512 <= 20 * MIB


async def _fits(store: ChunkStore, index: int, version: int, data: bytes) -> bool:
    """Write; False if the store says that it is full."""
    try:
        await put(store, index, version, 0, data, step="once")
    except FsError as error:
        if error.code is not Code.NO_SPACE:
            raise
        return False
    return True


def _fill(path: Path) -> None:
    """Take what the file system has left."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (MIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while os.write(fd, bytes(size)):
                    pass
    finally:
        os.close(fd)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(target)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield target
    subprocess.run(["umount", str(target)], check=True)


async def test_a_full_disk_refuses_writes_and_nothing_else(small_disk: Path) -> None:
    async with opened(small_disk / "s") as store:
        count = 0
        while await _fits(store, count, 1, bytes([count % 256]) * MIB):
            count += 1
        assert store.failure is None
        assert count > 30
        assert store.meta(chunk(count)) is None
        for index in range(count):
            assert (await store.read(chunk(index), 0, WHOLE)).data == bytes([index % 256]) * MIB
        for index in range(0, count, 2):
            await store.prepare_and_commit(
                chunk(index),
                kind=UpdateKind.REMOVE,
                version=2,
                offset=0,
                length=0,
                data=None,
                checksums=(),
                chain_version=1,
                tags=(),
            )
        for index in range(0, count, 2):  # what was removed is free at once
            await put(store, index, 1, 0, b"n" * MIB)
    async with opened(small_disk / "s") as store:
        assert store.usage().chunks == count
        assert (await store.read(chunk(1), 0, WHOLE)).data == b"\1" * MIB


async def test_a_full_disk_keeps_its_reserve_for_metadata(small_disk: Path) -> None:
    """However often it is opened, whatever it held back from the removed, whoever else grows."""
    reserve = 48 * MIB // 16
    count = 0
    for size in (MIB, 100 * KIB, 5 * KIB):
        async with opened(small_disk / "s") as store, opened(small_disk / "t") as other:
            while await _fits(store, count, 1, bytes(size)) | await _fits(other, count, 1, b"x"):
                count += 1
                if not await _fits(store, count, 1, bytes(size)):
                    break
                count += 1
            assert shutil.disk_usage(small_disk).free > reserve // 4
    async with opened(small_disk / "s") as store:
        for stored in store.list(b"", count):
            await store.prepare_and_commit(
                stored.chunk,
                kind=UpdateKind.REMOVE,
                version=2,
                offset=0,
                length=0,
                data=None,
                checksums=(),
                chain_version=1,
                tags=(),
            )
        await store.flush()
        assert shutil.disk_usage(small_disk).free > 40 * MIB


async def test_a_flush_on_a_disk_filled_by_others_is_tried_again(small_disk: Path) -> None:
    filler = small_disk / "filler"
    async with opened(small_disk / "s") as store:
        await put(store, 0, 1, 0, b"old")
        _fill(filler)
        expected, version = b"old", 2
        while await _fits(store, 0, version, b"%d" % version):  # in what the log had left
            expected, version = b"%d" % version, version + 1
        expected += b"old"[len(expected) :]
        with contextlib.suppress(FsError):  # there may be room for a flush all the same
            await store.flush()
        assert store.failure is None
        filler.unlink()
        await store.flush()
        assert (await store.read(chunk(0), 0, WHOLE)).data == expected
        assert store.failure is None


async def test_metadata_that_does_not_fit_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await put(store, 0, 1, 0, b"a" * 5000)
        used = store.usage().used

        def refused(_: object, __: object) -> None:
            raise FsError(Code.NO_SPACE, "metadata")

        with monkeypatch.context() as patch:
            patch.setattr(Metadata, "write", refused)
            for data in (b"b" * 100, b"b" * 100_000):
                with pytest.raises(FsError) as error:
                    await put(store, 0, 2, 0, data)
                assert error.value.code is Code.NO_SPACE
        assert store.usage().used == used
        assert (await store.read(chunk(0), 0, WHOLE)).data == b"a" * 5000
        await put(store, 0, 2, 0, b"c" * 100)
        assert (await store.read(chunk(0), 0, 100)).data == b"c" * 100


async def test_a_disk_filled_by_others_to_the_last_byte(small_disk: Path) -> None:
    """RocksDB itself meets ENOSPC; when there is room again, all goes on."""
    filler = small_disk / "filler"
    async with opened(small_disk / "s") as store:
        versions = [1] * 8
        for index in range(8):
            await put(store, index, 1, 0, bytes([index]) * MIB)
        await store.flush()
        _fill(filler)
        refused = 0
        for attempt in range(200):
            index = attempt % 8
            if await _fits(store, index, versions[index] + 1, bytes([index]) * MIB):
                versions[index] += 1
            else:
                refused += 1
        assert refused
        filler.unlink()
        for index in range(8):
            await put(store, index, versions[index] + 1, 0, b"fits", step="once")
        for index in range(8):
            found = await store.read(chunk(index), 0, WHOLE)
            assert found.data == b"fits" + bytes([index]) * (MIB - 4)
        assert store.failure is None
