"""Whose directory this is, and that only one process uses it."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from pathlib import Path

    from storage_service.store.types import StoreIdentity

FORMAT = 1
_FILE = "identity.json"
_LOCK = "lock"


def lock(directory: Path) -> int:
    """A descriptor that holds the directory's lock until it is closed.

    Raises ``FsError(CONFIG)`` if another process holds it or the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FsError(Code.CONFIG, f"{directory}: cannot be used as a target") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise FsError(Code.CONFIG, f"{directory}: another process uses this target") from error
    return fd


def establish(directory: Path, identity: StoreIdentity) -> uuid.UUID:
    """UUID of the store, which is ``identity``'s; written first into an empty directory.

    Raises ``FsError(CONFIG)`` for the directory of another cluster or target, of another format,
    or with anything else in it.
    """
    path = directory / _FILE
    if not path.exists():
        _create(path, identity)
    try:
        stored = json.loads(path.read_bytes())
        store = uuid.UUID(stored["store"])
        found = (stored["format"], stored["cluster_id"], stored["target_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FsError(Code.CONFIG, f"{path}: not the identity of a target") from error
    wanted = (FORMAT, identity.cluster_id, identity.target_id)
    if found != wanted:
        message = f"{path}: holds (format, cluster, target) {found}, not {wanted}"
        raise FsError(Code.CONFIG, message)
    return store


def _create(path: Path, identity: StoreIdentity) -> None:
    draft = path.with_suffix(".new")
    strangers = {entry.name for entry in path.parent.iterdir()} - {_LOCK, "lost+found", draft.name}
    if strangers:
        names = ", ".join(sorted(strangers)[:3])
        raise FsError(Code.CONFIG, f"{path.parent}: has no {_FILE} but is not empty ({names})")
    content = {
        "format": FORMAT,
        "cluster_id": identity.cluster_id,
        "target_id": identity.target_id,
        "store": str(uuid.uuid4()),
    }
    try:
        with draft.open("w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise FsError(Code.CONFIG, f"{path}: cannot be written") from error


def sync_directory(directory: Path) -> None:
    """Make the names in it durable. Raises ``OSError``."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
