"""Large files by dd and fio: several jobs, unaligned sizes, remounted with cold caches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.system.real_input.programs import run, sha256, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.harness import TestCluster

pytestmark = [pytest.mark.system, pytest.mark.mount, pytest.mark.real_input]

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.timeout(1500)
def test_dd_two_gibibytes(work: Path, cluster: TestCluster | None, tmp_path: Path) -> None:
    local, path = tmp_path / "source", work / "2GiB"
    run("dd", "if=/dev/urandom", f"of={local}", "bs=1M", "count=256")
    expected = sha256(local)
    eight = f"for i in 1 2 3 4 5 6 7 8; do cat '{local}'; done"
    run("bash", "-c", f"{eight} | dd of='{path}' bs=1000003 iflag=fullblock")
    assert path.stat().st_size == 2 * GIB
    if cluster is not None:
        cluster.remount()
    for part in range(8):
        command = f"dd if='{path}' bs=1M skip={part * 256} count=256 status=none | sha256sum"
        assert run("bash", "-c", command).split()[0] == expected, f"part {part} differs"
    local.unlink()


def fio(directory: Path, *options: str) -> None:
    run(
        *("fio", "--name=job", f"--directory={directory}", "--ioengine=psync", "--group_reporting"),
        *(
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--fallocate=truncate",
            "--randrepeat=1",
            "--output-format=terse",
        ),
        *options,
        timeout=1400,
    )


@pytest.mark.timeout(1500)
def test_fio_four_jobs_unaligned_then_cold(work: Path, cluster: TestCluster | None) -> None:
    shape = ["--rw=write", "--bsrange=1k-997k", "--bs_unaligned", "--size=512M", "--numjobs=4"]
    fio(work, *shape, "--do_verify=1")
    assert sum(entry.stat().st_size for entry in os.scandir(work)) >= 2 * GIB - 4 * MIB
    if cluster is not None:
        cluster.remount()
    fio(work, *shape, "--verify_only=1")


@pytest.mark.timeout(900)
def test_fio_random_small_writes(work: Path) -> None:
    fio(work, "--rw=randwrite", "--bs=4k", "--size=16M", "--numjobs=4", "--do_verify=1")


@pytest.mark.timeout(900)
def test_fio_direct(work: Path) -> None:
    fio(work, "--rw=randrw", "--bs=64k", "--size=32M", "--numjobs=2", "--direct=1", "--do_verify=1")


def stored(cluster: TestCluster) -> int:
    """Bytes that the storage nodes' files take on their disk."""
    nodes = cluster.directory.glob("storage-*")
    return 512 * sum(p.lstat().st_blocks for node in nodes for p in walk(node))


def test_beyond_four_gibibytes_sparse(work: Path, cluster: TestCluster | None) -> None:
    path = work / "sparse"
    before = stored(cluster) if cluster else 0
    with path.open("wb") as file:
        file.seek(5 * GIB + 7)
        file.write(b"the end")
    assert path.stat().st_size == 5 * GIB + 14
    if cluster is not None:
        assert stored(cluster) - before < GIB, "holes must cost nothing"
    with path.open("rb") as file:
        file.seek(4 * GIB - 3)
        assert file.read(1000) == bytes(1000)
        file.seek(5 * GIB)
        assert file.read() == bytes(7) + b"the end"
