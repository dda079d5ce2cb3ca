"""What POSIX and Linux promise about a mounted file system, call by call, on a real mount."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from fireflyfs.clock import file_time_ns
from tests.system.harness import TestCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.mount]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with TestCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def work(cluster: TestCluster, request: pytest.FixtureRequest) -> Path:
    name: str = request.node.name
    directory = cluster.mountpoint / name
    directory.mkdir()
    return directory


def fails_with(number: int, call: object, *arguments: object) -> None:
    assert callable(call)
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number, errno.errorcode.get(caught.value.errno or 0)


def next_tick() -> None:
    """File times are of the kernel's clock, which ticks every few milliseconds."""
    now = file_time_ns()
    while file_time_ns() == now:
        pass


def test_write_read_append_truncate(work: Path) -> None:
    path = work / "f"
    path.write_bytes(b"hello")
    with path.open("ab") as file:
        file.write(b" world")
    assert path.read_bytes() == b"hello world"
    os.truncate(path, 4)
    assert path.read_bytes() == b"hell"
    os.truncate(path, 3 << 20)
    data = path.read_bytes()
    assert data == b"hell" + bytes((3 << 20) - 4), "bytes cut off must not come back"
    with path.open("r+b") as file:
        file.seek((1 << 20) - 3)
        file.write(b"across the chunk")
    assert path.read_bytes()[(1 << 20) - 4 : (1 << 20) + 14] == b"\0across the chunk\0"
    with path.open("wb"):
        pass
    assert path.stat().st_size == 0


def test_size_and_mtime_are_right_at_once(work: Path) -> None:
    path = work / "f"
    with path.open("wb", buffering=0) as file:
        before = path.stat()
        for step in range(1, 20):
            file.write(b"x" * 1000)
            assert path.stat().st_size == step * 1000 == os.fstat(file.fileno()).st_size
        assert path.stat().st_mtime_ns >= before.st_mtime_ns
    os.utime(path, ns=(1, 2_000_000_003))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1, 2_000_000_003)


def test_open_flags(work: Path) -> None:
    path = work / "f"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    fails_with(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails_with(errno.ENOENT, os.open, work / "none", os.O_RDONLY)
    fails_with(errno.EISDIR, os.open, work, os.O_WRONLY)
    fails_with(errno.ENOTDIR, os.open, path / "below", os.O_RDONLY)
    fails_with(errno.ENAMETOOLONG, os.open, work / ("n" * 256), os.O_CREAT | os.O_WRONLY)
    os.close(os.open(work / ("n" * 255), os.O_CREAT | os.O_WRONLY))
    (work / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(b"1")
    assert os.fsdecode(b"\xff\xfe not utf-8") in os.listdir(work)


def test_two_appenders_lose_nothing(work: Path) -> None:
    path = work / "log"

    def append(letter: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for _ in range(100):
            os.write(descriptor, letter * 37 + b"\n")
        os.close(descriptor)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 37] * 100 + [b"b" * 37] * 100


def test_unlinked_open_file_stays(work: Path) -> None:
    path = work / "f"
    with path.open("w+b", buffering=0) as file:
        file.write(b"kept" * 100_000)
        path.unlink()
        assert not path.exists()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.seek(0)
        assert file.read() == b"kept" * 100_000
        file.write(b"more")
        assert os.fstat(file.fileno()).st_size == 400_004
        path.write_bytes(b"another file of the name")
        file.seek(399_998)
        assert file.read() == b"ptmore"
    assert path.read_bytes() == b"another file of the name"


def test_links_and_symlinks(work: Path) -> None:
    path = work / "f"
    path.write_bytes(b"1")
    os.link(path, work / "g")
    assert path.stat().st_nlink == (work / "g").stat().st_nlink == 2
    assert path.samefile(work / "g")
    path.unlink()
    assert (work / "g").stat().st_nlink == 1
    fails_with(errno.EPERM, os.link, work, work / "d")
    os.symlink("g", work / "s")
    assert os.readlink(work / "s") == "g"
    assert (work / "s").read_bytes() == b"1"
    assert (work / "s").lstat().st_size == 1
    os.symlink("loop", work / "loop")
    fails_with(errno.ELOOP, os.stat, work / "loop")


def test_directories(work: Path) -> None:
    (work / "a/b").mkdir(parents=True)
    assert work.stat().st_nlink == 3
    fails_with(errno.ENOTEMPTY, os.rmdir, work / "a")
    fails_with(errno.EISDIR, os.unlink, work / "a/b")
    (work / "f").write_bytes(b"")
    fails_with(errno.ENOTDIR, os.rmdir, work / "f")
    fails_with(errno.EEXIST, os.mkdir, work / "a")
    before = work.stat().st_mtime_ns
    next_tick()
    (work / "new").mkdir()
    assert work.stat().st_mtime_ns > before
    names = {f"file {n}" for n in range(3000)}
    for name in names:
        os.close(os.open(work / "a" / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(work / "a")) == names | {"b"}
    with os.scandir(work / "a") as entries:
        for number, item in enumerate(entries):
            if number % 2:
                os.unlink(item.path) if not item.is_dir() else os.rmdir(item.path)
    for name in os.listdir(work / "a"):
        (os.rmdir if name == "b" else os.unlink)(work / "a" / name)
    os.rmdir(work / "a")


def test_rename(work: Path) -> None:
    (work / "a").write_bytes(b"a")
    (work / "b").write_bytes(b"b")
    os.rename(work / "a", work / "b")
    assert (work / "b").read_bytes() == b"a"
    assert os.listdir(work) == ["b"]
    (work / "d/e").mkdir(parents=True)
    fails_with(errno.EINVAL, os.rename, work / "d", work / "d/e/f")
    fails_with(errno.EISDIR, os.rename, work / "b", work / "d")
    fails_with(errno.ENOTDIR, os.rename, work / "d", work / "b")
    (work / "empty").mkdir()
    fails_with(errno.ENOTEMPTY, os.rename, work / "empty", work / "d")
    os.rename(work / "d", work / "empty")
    assert os.listdir(work / "empty") == ["e"]
    with (work / "b").open("rb") as replaced:
        (work / "c").write_bytes(b"c")
        os.rename(work / "c", work / "b")
        assert replaced.read() == b"a", "a replaced file that is open stays readable"


def test_attributes(work: Path) -> None:
    path = work / "f"
    path.write_bytes(b"1")
    os.chmod(path, 0o4751)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
        assert stat.S_IMODE(path.stat().st_mode) == 0o751, "chown takes the set-user-id bit away"
    before = path.stat().st_ctime_ns
    next_tick()
    os.chmod(path, 0o600)
    assert path.stat().st_ctime_ns > before
    path.touch()
    assert path.stat().st_mtime_ns >= before, "touch must not set times back"
    os.utime(path, (2**33, 2**34))
    assert path.stat().st_atime == 2**33
    assert path.stat().st_mtime_ns == 2**63 - 1, "the last time that can be stored"


def test_extended_attributes(work: Path) -> None:
    path = work / "f"
    path.write_bytes(b"")
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.big", b"x" * 60_000)
    assert sorted(os.listxattr(path)) == ["user.big", "user.one"]
    assert os.getxattr(path, "user.big") == b"x" * 60_000
    fails_with(errno.ENODATA, os.getxattr, path, "user.none")
    fails_with(errno.EEXIST, os.setxattr, path, "user.one", b"", os.XATTR_CREATE)
    fails_with(errno.ENODATA, os.setxattr, path, "user.none", b"", os.XATTR_REPLACE)
    os.removexattr(path, "user.one")
    assert os.listxattr(path) == ["user.big"]


def test_special_files(work: Path) -> None:
    os.mkfifo(work / "fifo", 0o600)
    assert stat.S_ISFIFO((work / "fifo").lstat().st_mode)
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(work)
        try:
            server.bind("socket")
        finally:
            os.chdir("/")
        assert stat.S_ISSOCK((work / "socket").lstat().st_mode)
    if os.geteuid() == 0:
        os.mknod(work / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert (work / "null").lstat().st_rdev == os.makedev(1, 3)


def test_mmap(work: Path) -> None:
    path = work / "f"
    path.write_bytes(bytes(3 << 20))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[(1 << 20) - 2 : (1 << 20) + 2] = b"abcd"
        view[-1:] = b"z"
        view.flush()
    data = path.read_bytes()
    assert data[(1 << 20) - 2 : (1 << 20) + 2] == b"abcd"
    assert data[-1:] == b"z"
    assert len(data) == 3 << 20


def test_direct_io(work: Path) -> None:
    path = work / "f"
    page = mmap.mmap(-1, 1 << 20)
    page.write(os.urandom(1 << 20))
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    try:
        assert os.pwritev(descriptor, [page], 4096) == 1 << 20
        back = mmap.mmap(-1, 1 << 20)
        assert os.preadv(descriptor, [back], 4096) == 1 << 20
        assert back[:] == page[:]
    finally:
        os.close(descriptor)


def test_sync_calls(work: Path) -> None:
    descriptor = os.open(work / "f", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(descriptor, b"1")
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    os.close(descriptor)
    directory = os.open(work, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def test_locks_between_processes(work: Path) -> None:
    path = work / "f"
    with path.open("wb") as one, path.open("wb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fails_with(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_permissions_are_enforced(work: Path) -> None:
    path = work / "secret"
    path.write_bytes(b"1")
    os.chmod(path, 0o600)
    os.chmod(work, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
        refused = 0
        for call in (lambda: path.read_bytes(), lambda: (work / "new").write_bytes(b"")):
            try:
                call()
            except PermissionError:
                refused += 1
        os._exit(0 if refused == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_statfs(cluster: TestCluster) -> None:
    space = os.statvfs(cluster.mountpoint)
    assert space.f_blocks > space.f_bavail > 0
    assert space.f_namemax == 255


def test_second_mount_sees_closed_files(cluster: TestCluster, work: Path, tmp_path: Path) -> None:
    other = cluster.mount_again(tmp_path / "other")
    (work / "f").write_bytes(b"closed" * 1000)
    assert (other / work.name / "f").read_bytes() == b"closed" * 1000
    (other / work.name / "f").write_bytes(b"changed")
    (other / work.name / "g").write_bytes(b"new")
    assert (work / "f").read_bytes() == b"changed"
    assert (work / "g").read_bytes() == b"new"
