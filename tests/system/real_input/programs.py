"""Running programs that nobody here wrote, and comparing what they left behind."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    stdin: str | None = None,
) -> str:
    """Standard output of a program that must succeed; its whole output is in the failure."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (
        f"{command} exited with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


@dataclass(frozen=True)
class Entry:
    """What must be the same in a copy."""

    mode: int
    size: int
    mtime_ns: int
    content: str
    """sha256 of a file, target of a symlink, empty for a directory."""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry(path: Path, *, times: bool = True) -> Entry:
    status = path.lstat()
    content, size = "", status.st_size
    if stat.S_ISREG(status.st_mode):
        content = sha256(path)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        size = 0  # every file system has its own idea of a directory's size
    return Entry(status.st_mode, size, status.st_mtime_ns if times else 0, content)


def inventory(root: Path, *, times: bool = True) -> dict[str, Entry]:
    """Every path below ``root``, relative to it."""
    return {str(p.relative_to(root)): entry(p, times=times) for p in walk(root)}


def walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        base = root / os.path.relpath(folder, root)
        for name in [*folders, *files]:
            yield base / name


def differences(left: Mapping[str, Entry], right: Mapping[str, Entry]) -> Sequence[str]:
    """One line for each path that is missing on a side or differs."""
    return [
        f"{name}: {left.get(name)} != {right.get(name)}"
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    ]
