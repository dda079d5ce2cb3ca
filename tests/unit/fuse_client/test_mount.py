"""A real mount of fake peers: what only the kernel can ask."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.supervisor.mountpoint import mounted_at, unmount
from fuse_client import mount, mountpoint
from fuse_client.mount import serve_kernel
from tests.unit.fuse_client.fakes import Bench, bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PRELUDE = "import mmap, os, pathlib, random\n"
pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(
        not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"),
        reason="needs /dev/fuse and fusermount3",
    ),
]


@pytest.fixture
async def b() -> AsyncIterator[Bench]:
    async with bench() as made:
        await made.operations.files.refresh(1)
        yield made


async def on_mount(b: Bench, place: Path, *programs: str) -> None:
    """Run Python programs in the mount, one after the other; unmount by cancelling.

    They are processes of their own: a page fault of ours would wait for ourselves, with the
    interpreter's lock in hand.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_kernel, b.operations, place, mountpoint.options(False))
        for program in programs:
            with trio.fail_after(30):
                await trio.run_process([sys.executable, "-c", PRELUDE + program], cwd=place)
        nursery.cancel_scope.cancel()
    assert mounted_at(place) is None


async def test_bytes_come_back(b: Bench, tmp_path: Path) -> None:
    write = """
data = random.Random(5).randbytes(5 * 65536 + 123)
pathlib.Path("f").write_bytes(data)
with open("f", "ab") as file:
    file.write(b"end")
"""
    read = """
data = random.Random(5).randbytes(5 * 65536 + 123)
assert pathlib.Path("f").read_bytes() == data + b"end"
with open("f", "rb") as file:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(77)
    assert file.read(65536) == data[77 : 77 + 65536]
"""
    await on_mount(b, tmp_path, write, read)


async def test_mapped_pages_are_written_back_by_the_unmount(b: Bench, tmp_path: Path) -> None:
    write = """
with open("f", "w+b") as file:
    file.truncate(100_000)
    mapped = mmap.mmap(file.fileno(), 0)
    mapped[50_000:50_005] = b"hello"
    assert os.pread(file.fileno(), 5, 50_000) == b"hello"
"""
    read = """
assert pathlib.Path("f").read_bytes() == bytes(50_000) + b"hello" + bytes(49_995)
"""
    await on_mount(b, tmp_path, write)
    again = Bench(b.engine, b.peers)
    await again.operations.files.refresh(1)
    await on_mount(again, tmp_path, read)


async def test_a_listing_shows_everything_and_survives_removals(b: Bench, tmp_path: Path) -> None:
    fill = """
for i in range(600):
    pathlib.Path(f"{i:03}").touch()
assert sorted(os.listdir()) == [f"{i:03}" for i in range(600)]
"""
    empty = """
with os.scandir() as entries:
    for entry in entries:
        os.unlink(entry)
assert os.listdir() == []
"""
    await on_mount(b, tmp_path, fill, empty)


async def test_somebody_else_unmounts(b: Bench, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_kernel, b.operations, tmp_path, mountpoint.options(False))
            await trio.to_thread.run_sync(unmount, tmp_path)
    assert mounted_at(tmp_path) is None


async def test_a_mount_in_use_goes_out_of_sight(
    b: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "LET_GO_SECONDS", 0.2)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_kernel, b.operations, tmp_path, mountpoint.options(False))
            held = await trio.to_thread.run_sync(os.open, tmp_path, os.O_RDONLY)
            nursery.cancel_scope.cancel()
    assert mounted_at(tmp_path) is None
    os.close(held)
