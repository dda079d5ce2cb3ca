"""The ordered store of metadata: RocksDB, through rocksdict in raw mode. Its only importer.

Keys::

    i                          uuid of the store (16 bytes): data and metadata belong together
    c + chunk id               the chunk's record (record.py)
    r + sequence u64           a redo write: block, offset, bytes
    u + epoch u64 + chunk id   the record as it was before the chunk's first change in that epoch
                               (empty: there was none); see epochs.py

Integers in keys are big-endian, so that they sort. Writes go to the write-ahead log in the page
cache and survive the death of the process; ``sync`` makes everything written before durable.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from rocksdict import DBCompressionType, DBRecoveryMode, Options, Rdict, WriteBatch

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

Put = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""

_FULL = "No space left", "quota exceeded", "Writer has previous error"

STORE_UUID = b"i"
CHUNK, REDO, UNDO = b"c", b"r", b"u"


def chunk_key(chunk: bytes) -> bytes:
    return CHUNK + chunk


def redo_key(sequence: int) -> bytes:
    return REDO + sequence.to_bytes(8, "big")


def undo_key(epoch: int, chunk: bytes) -> bytes:
    return UNDO + epoch.to_bytes(8, "big") + chunk


class Metadata:
    """An open database. Every method may be called from any thread, ``write``, ``recover`` and
    ``close`` from one at a time.

    Raises ``FsError``: NO_SPACE (nothing was done, and all goes on when there is room again), or
    TARGET_FAILED for everything else that RocksDB reports.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refuses = False
        self._reading = threading.RLock()
        """Held by reads, and while the instance is replaced."""
        self._syncing = threading.Lock()
        """Held by a sync, and while the instance is replaced."""
        self._db: Rdict | None = self._open()

    @property
    def _live(self) -> Rdict:
        if self._db is None:
            raise FsError(Code.NO_SPACE, f"{self._path}: the metadata is closed until it has room")
        return self._db

    def _open(self) -> Rdict:
        try:
            return Rdict(str(self._path), _options())
        except Exception as error:
            raise _translated(error, f"{self._path}: the metadata cannot be opened") from error

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._reading:
                value: bytes | None = self._live.get(key)
        except FsError:
            raise
        except Exception as error:
            raise _translated(error, f"{self._path}: metadata cannot be read") from error
        return value

    def write(self, puts: Sequence[Put]) -> None:
        """All of it or nothing."""
        self.recover()
        batch = WriteBatch(raw_mode=True)
        for key, value in puts:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        live = self._live
        try:
            live.write(batch)
        except Exception as error:
            self._refuses = True
            raise _translated(error, f"{self._path}: metadata cannot be written") from error

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key without prefix, value) from ``prefix + start`` on, in order."""
        try:
            with self._reading:
                items: Iterator[tuple[Any, Any]] = self._live.items(from_key=prefix + start)
                for key, value in items:
                    if not key.startswith(prefix):
                        return
                    yield key[len(prefix) :], value
        except FsError:
            raise
        except Exception as error:
            raise _translated(error, f"{self._path}: metadata cannot be read") from error

    def sync(self) -> None:
        with self._syncing:
            live = self._live
            try:
                live.flush_wal(True)
            except Exception as error:
                raise _translated(error, f"{self._path}: metadata cannot be synced") from error

    def recover(self) -> None:
        """After a failed write RocksDB refuses all further ones; a fresh instance does not."""
        if self._refuses:
            with self._syncing, self._reading:
                self._close()
                self._db = self._open()
            self._refuses = False

    def close(self) -> None:
        """Never raises: what RocksDB cannot write to its tables any more is in its log."""
        with self._syncing, self._reading:
            self._close()

    def _close(self) -> None:
        if self._db is not None:
            try:
                self._db.close()
            except Exception as error:
                _log.warning("%s: closed with %s", self._path, error)
            self._db = None


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(8 * MIB)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.none())
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(MIB)
    options.set_max_total_wal_size(32 * MIB)
    return options


def _translated(error: Exception, message: str) -> FsError:
    # Of "previous errors" the write that met one has told; it is for that write to judge them.
    full = any(sign in str(error) for sign in _FULL)
    return FsError(Code.NO_SPACE if full else Code.TARGET_FAILED, message)
