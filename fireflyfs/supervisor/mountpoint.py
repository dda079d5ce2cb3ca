"""Mount points as the kernel lists them: is this one free, is it ours, take it away.

Nothing here touches a path before the mount table was asked: ``stat`` on a FUSE file system whose
server hangs would hang too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOUNT_TABLE = Path("/proc/self/mountinfo")
UNMOUNT_SECONDS = 10.0
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    point: str
    kind: str
    """File system type: ``ext4``, ``fuse.fireflyfs``."""
    source: str

    @property
    def is_ours(self) -> bool:
        """A FireflyFS mount, of whichever cluster."""
        return self.kind.startswith("fuse") and self.source.partition(":")[0] == "fireflyfs"


def parse_table(text: str) -> list[Mount]:
    """The mounts of a ``/proc/PID/mountinfo`` (proc(5)), in mount order."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mine, theirs = left.split(" "), right.split(" ")
        if len(mine) > 4 and len(theirs) > 1:
            mounts.append(Mount(_plain(mine[4]), theirs[0], _plain(theirs[1])))
    return mounts


def mounts() -> list[Mount]:
    # Paths are bytes to the kernel: what is not UTF-8 comes through as os.fsdecode would have it.
    return parse_table(os.fsdecode(MOUNT_TABLE.read_bytes()))


def mounted_at(point: Path) -> Mount | None:
    """What is mounted on exactly this path: the topmost, if several are stacked."""
    return next((m for m in reversed(mounts()) if m.point == str(point)), None)


def absolute(path: Path) -> Path:
    """``path`` without symlinks, as the mount table has it. A mount on it is not touched."""
    path = Path(os.path.abspath(path))
    path = path.parent.resolve() / path.name if path.name else path
    return path if mounted_at(path) else path.resolve()


def check_free(point: Path, keep_visible: Iterable[Path] = ()) -> None:
    """Raises FsError(CONFIG) in one line unless a file system can be mounted on ``point``.

    ``keep_visible`` are directories that must not disappear under the mount.
    """
    mount = mounted_at(point)
    if mount is not None:
        raise _refused(f"{point} is in use: {mount.source} ({mount.kind}) is mounted there")
    for path in keep_visible:
        if path == point or point in path.parents:
            raise _refused(f"{point} cannot be the mount point: the mount would hide {path}")
    try:
        entries = os.listdir(point)
    except FileNotFoundError:
        raise _refused(f"the mount point {point} is not there: mkdir -p {point}") from None
    except NotADirectoryError:
        raise _refused(f"the mount point {point} is not a directory") from None
    except OSError as error:
        raise _refused(f"the mount point {point}: {error.strerror}") from None
    if entries:
        raise _refused(f"the mount point {point} is not empty (it holds {min(entries)!r})")


def is_dead(point: Path) -> bool:
    """The mount's server is gone: every access fails with ENOTCONN."""
    try:
        os.stat(point)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def detach(point: Path) -> None:
    """Take away every FireflyFS mount on ``point``, lazily: open files of others do not stop it.

    Call it only when the serving process is dead, or is meant to end. Raises FsError(INTERNAL).
    """
    for _ in range(len(mounts())):
        mount = mounted_at(point)
        if mount is None or not mount.is_ours:
            return
        unmount(point, lazy=True)


def unmount(point: Path, *, lazy: bool = False) -> None:
    """Raises FsError(INVALID) if it is refused: the mount is in use, or another user's."""
    failure = "neither fusermount3 nor umount was found"
    for command in _unmount_commands(lazy):
        try:
            done = subprocess.run(
                [*command, str(point)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=UNMOUNT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            failure = f"{command[0]} did not answer in {UNMOUNT_SECONDS:.0f} s"
            continue
        if done.returncode == 0 or mounted_at(point) is None:
            return
        failure = " ".join(done.stderr.split()) or f"{command[0]} failed"
    raise FsError(Code.INVALID, f"cannot unmount {point}: {failure}")


def _unmount_commands(lazy: bool) -> list[list[str]]:
    commands = [["fusermount3", "-uz" if lazy else "-u"]]
    if os.geteuid() == 0:
        commands.append(["umount", "-l"] if lazy else ["umount"])
    return [c for c in commands if shutil.which(c[0])]


def _plain(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), field)


def _refused(message: str) -> FsError:
    return FsError(Code.CONFIG, message)
