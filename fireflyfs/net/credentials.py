"""What a process knows that a stranger does not: the cluster's id and its shared secret.

The secret never travels: ``net/handshake.py`` and the gRPC metadata prove knowledge of it by HMAC.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fireflyfs.errors import Code, FsError

MIN_SECRET = 16
MAX_SECRET = 1024
MAX_CLUSTER_ID = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """``secret`` is kept out of ``repr`` and of every message."""

    cluster_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.cluster_id.encode()) <= MAX_CLUSTER_ID:
            raise FsError(Code.CONFIG, f"a cluster id has 1 to {MAX_CLUSTER_ID} bytes")
        if not MIN_SECRET <= len(self.secret) <= MAX_SECRET:
            raise FsError(Code.CONFIG, f"a secret has {MIN_SECRET} to {MAX_SECRET} bytes")

    @classmethod
    def load(cls, cluster_id: str, path: str | Path) -> Credentials:
        """Read the secret from a file that only its owner, the caller, may read.

        Raises FsError(CONFIG), naming the file: missing, readable by others, too short.
        """
        try:
            with open(path, "rb") as file:
                _check_private(path, os.fstat(file.fileno()))
                secret = file.read(MAX_SECRET + 1).strip()
        except OSError as error:
            raise FsError(Code.CONFIG, f"secret file {path}: {error.strerror}") from None
        try:
            return cls(cluster_id, secret)
        except FsError as error:
            raise FsError(Code.CONFIG, f"secret file {path}") from error

    @staticmethod
    def create(path: str | Path) -> None:
        """Write a new random secret (256 bits, in hex), mode 0600; an existing file is kept.

        Another process sees the file complete or not at all.
        """
        target = Path(path)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, target)
        finally:
            draft.unlink()

    def proof(self, *parts: bytes) -> bytes:
        """HMAC-SHA256 (32 bytes) over the parts, each with its length before it, so that no two
        lists of parts give the same input."""
        mac = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(4, "little"))
            mac.update(part)
        return mac.digest()


def _check_private(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FsError(Code.CONFIG, f"secret file {path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise FsError(Code.CONFIG, f"secret file {path} belongs to uid {status.st_uid}, not to us")
    if status.st_mode & 0o077:
        raise FsError(Code.CONFIG, f"secret file {path} is open to others: chmod 600 {path}")
