"""``fireflyfs bench mount``: the mount against the local directory and against a null FUSE mount.

A scratch cluster is brought up below the given directory, so that its data lies on the file system
that also serves as a ceiling; it is taken down afterwards. The null FUSE file system answers
every call from memory without looking at it: what it cannot do, no pyfuse3 file system can.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs.bench import workloads
from fireflyfs.bench.report import Figure, figure
from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1 << 10


@dataclass(frozen=True)
class Scale:
    """How much work one run does."""

    size: int
    """Bytes of the large file."""
    files: int
    reads: int
    """Random reads of each size."""


@dataclass(frozen=True)
class Workload:
    name: str
    unit: str
    run: Callable[[Path, Scale], float]
    local_target: float | None = None
    """Ratio to the local directory that is asked for."""


WORKLOADS = (
    Workload(
        "sequential write, 1 MiB, fsync",
        "MiB/s",
        lambda at, scale: workloads.sequential_write(at / "large", scale.size),
    ),
    Workload(
        "sequential read, 1 MiB, client cache dropped",
        "MiB/s",
        lambda at, scale: workloads.sequential_read(at / "large", scale.size, cached=False),
    ),
    Workload(
        "sequential read again, 1 MiB",
        "MiB/s",
        lambda at, scale: workloads.sequential_read(at / "large", scale.size, cached=True),
        local_target=0.25,
    ),
    Workload(
        "random read, 4 KiB",
        "reads/s",
        lambda at, scale: workloads.random_read(at / "large", scale.size, 4 * KIB, scale.reads),
    ),
    Workload(
        "random read, 64 KiB",
        "reads/s",
        lambda at, scale: workloads.random_read(at / "large", scale.size, 64 * KIB, scale.reads),
    ),
    Workload("create", "files/s", lambda at, scale: workloads.create(at, scale.files)),
    Workload("write 4 KiB", "files/s", lambda at, scale: workloads.fill(at, scale.files)),
    Workload("stat", "files/s", lambda at, scale: workloads.stat(at, scale.files)),
    Workload(
        "open, read 4 KiB, close",
        "files/s",
        lambda at, scale: workloads.open_read_close(at, scale.files),
    ),
    Workload("unlink", "files/s", lambda at, scale: workloads.unlink(at, scale.files)),
)
"""In this order: each finds what the ones before it left."""


def bench_mount(
    directory: Path, scale: Scale, runs: int, progress: Callable[[str], None]
) -> list[Figure]:
    """Measure below ``directory`` (created where missing; must be empty), ``runs`` times each.

    Raises:
        FsError: the cluster or the null file system did not come up.
    """
    local = directory / "local"
    local.mkdir(parents=True)
    rates: dict[tuple[str, str], list[float]] = {}
    with scratch_cluster(directory / "cluster") as mounted, null_mount(directory / "null") as null:
        for run in range(runs):
            for place, root in (("mount", mounted), ("local", local), ("null", null)):
                at = root / f"run {run}"
                at.mkdir()
                for work in WORKLOADS:
                    progress(f"run {run + 1} of {runs}: {work.name} on the {place}")
                    rates.setdefault((work.name, place), []).append(work.run(at, scale))
                (at / "large").unlink()
    return [
        figure(
            work.name,
            work.unit,
            rates[work.name, "mount"],
            ceiling_name,
            rates[work.name, place],
            work.local_target if place == "local" else None,
        )
        for work in WORKLOADS
        for place, ceiling_name in (("local", "local directory"), ("null", "null FUSE mount"))
    ]


@contextlib.contextmanager
def scratch_cluster(directory: Path) -> Iterator[Path]:
    """A cluster of three nodes and three replicas, mounted; its mount point."""
    mountpoint = directory.with_name("mount")
    mountpoint.mkdir()
    command = [sys.executable, "-m", "fireflyfs.cli"]
    here = ["--dir", os.fspath(directory)]
    up = subprocess.run(
        [*command, "up", *here, "--mount", os.fspath(mountpoint)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        if up.returncode:
            raise FsError(Code.INTERNAL, f"the scratch cluster did not start: {up.stderr.strip()}")
        yield mountpoint
    finally:
        subprocess.run([*command, "down", *here], capture_output=True, check=True)


@contextlib.contextmanager
def null_mount(mountpoint: Path) -> Iterator[Path]:
    """The null FUSE file system, mounted by a process of its own."""
    mountpoint.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "fuse_client.null", os.fspath(mountpoint)])
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise FsError(Code.INTERNAL, f"the null file system did not mount on {mountpoint}")
            time.sleep(0.02)
        yield mountpoint
    finally:
        process.terminate()
        process.wait(timeout=20)
