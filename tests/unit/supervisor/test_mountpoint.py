"""The mount table, and what may be mounted on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireflyfs.errors import Code, FsError
from fireflyfs.supervisor import mountpoint
from fireflyfs.supervisor.mountpoint import Mount

TABLE = (
    "23 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
    "28 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "90 28 0:50 / /mnt/a\\040b\\134c rw,nosuid,nodev - fuse.fireflyfs fireflyfs rw,user_id=0\n"
    "91 28 0:51 / /mnt/s rw - fuse.sshfs me@host: rw\n"
    "garbage\n"
)


def test_the_kernels_table_is_read() -> None:
    mounts = mountpoint.parse_table(TABLE)
    assert mounts == [
        Mount("/proc", "proc", "proc"),
        Mount("/", "ext4", "/dev/vda"),
        Mount("/mnt/a b\\c", "fuse.fireflyfs", "fireflyfs"),
        Mount("/mnt/s", "fuse.sshfs", "me@host:"),
    ]
    assert [m.is_ours for m in mounts] == [False, False, True, False]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda p: None, "is not there: mkdir -p"),
        (lambda p: p.write_text(""), "is not a directory"),
        (lambda p: (p / "x").mkdir(parents=True), "is not empty (it holds 'x')"),
    ],
)
def test_a_bad_place_is_refused(tmp_path: Path, make: object, complaint: str) -> None:
    point = tmp_path / "point"
    assert callable(make)
    make(point)
    with pytest.raises(FsError) as caught:
        mountpoint.check_free(point)
    assert caught.value.code is Code.CONFIG
    assert complaint in str(caught.value)


def test_a_mount_in_use_is_refused() -> None:
    with pytest.raises(FsError, match="in use: proc"):
        mountpoint.check_free(Path("/proc"))


@pytest.mark.parametrize("hidden", [".", "inside/deeper"])
def test_a_mount_must_not_hide_the_cluster(tmp_path: Path, hidden: str) -> None:
    with pytest.raises(FsError, match="would hide"):
        mountpoint.check_free(tmp_path, keep_visible=[(tmp_path / hidden)])


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    mountpoint.check_free(tmp_path)


def test_symlinks_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mountpoint.absolute(tmp_path / "link") == (tmp_path / "real").resolve()
    assert mountpoint.absolute(Path("/")) == Path("/")
