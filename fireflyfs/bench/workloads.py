"""The same small programs run in any directory: each returns a rate (higher is better)."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


def drop_cached_pages(path: Path) -> None:
    """Forget the kernel's pages of a file, so that the next read asks the file system."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sequential_write(path: Path, size: int) -> float:
    """MiB/s of 1 MiB writes and one fsync."""
    block = memoryview(random.Random(1).randbytes(MIB))

    def work() -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        try:
            for _ in range(size // MIB):
                os.write(descriptor, block)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    return size / MIB / timed(work)


def sequential_read(path: Path, size: int, *, cached: bool) -> float:
    """MiB/s of 1 MiB reads; unless ``cached``, the kernel's pages of the file are dropped first."""
    if not cached:
        drop_cached_pages(path)
    buffer = bytearray(MIB)

    def work() -> None:
        with path.open("rb", buffering=0) as file:
            for _ in range(size // MIB):
                if file.readinto(buffer) != MIB:
                    raise OSError(f"{path} is shorter than {size} bytes")

    return size / MIB / timed(work)


def random_read(path: Path, size: int, block: int, count: int) -> float:
    """Reads per second of ``block`` bytes at aligned places, each read once, no cached pages."""
    drop_cached_pages(path)
    places = random.Random(2).sample(range(size // block), min(count, size // block))
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    buffer = bytearray(block)

    def work() -> None:
        for place in places:
            os.preadv(descriptor, [buffer], place * block)

    try:
        return len(places) / timed(work)
    finally:
        os.close(descriptor)


def create(directory: Path, count: int) -> float:
    """Empty files created and closed per second."""

    def work() -> None:
        for number in range(count):
            os.close(os.open(directory / f"f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    return count / timed(work)


def fill(directory: Path, count: int) -> float:
    """Files of 4 KiB rewritten per second: open, write, close."""
    data = bytes(4096)

    def work() -> None:
        for number in range(count):
            (directory / f"f{number}").write_bytes(data)

    return count / timed(work)


def stat(directory: Path, count: int) -> float:
    def work() -> None:
        for number in range(count):
            os.stat(directory / f"f{number}")

    return count / timed(work)


def open_read_close(directory: Path, count: int) -> float:
    """Files of 4 KiB opened, read and closed per second."""

    def work() -> None:
        for number in range(count):
            (directory / f"f{number}").read_bytes()

    return count / timed(work)


def unlink(directory: Path, count: int) -> float:
    def work() -> None:
        for number in range(count):
            os.unlink(directory / f"f{number}")

    return count / timed(work)
