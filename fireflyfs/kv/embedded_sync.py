"""The thread that makes commits of the embedded engine durable within a second.

Commits write to the WAL without a sync (``synchronous = NORMAL``). Each engine's thread looks once
a second whether anybody committed, its own process or another (one may have been killed before its
own thread came to it), syncs the WAL, and moves a WAL that has grown into the main file.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import apsw

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.embedded_file import FILE_NAME, Connection
from fireflyfs.limits import MIB

if TYPE_CHECKING:
    from pathlib import Path

SYNC_SECONDS = 0.9
"""Below a second, so that the sync ends within the second that is promised."""
CHECKPOINT_BYTES = 16 * MIB
RESTART_BYTES = 64 * MIB
"""From this size on a checkpoint holds up writers, shortly, so that the WAL can start over."""
SCARCE_BYTES = 256 * MIB
"""With less left on the disk, the WAL is kept small at that cost."""
SCARCE_CHECKPOINT_BYTES = 1 * MIB
_BUSY_MS = 100

_log = logging.getLogger(__name__)


def free_and_total(directory: Path) -> tuple[int, int]:
    """Bytes of the file system. Raises ``OSError``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


class Syncer:
    """Owns a thread and a connection of its own; ``stop`` joins it."""

    def __init__(self, directory: Path) -> None:
        self._wal = directory / f"{FILE_NAME}-wal"
        self._connection = Connection(directory / FILE_NAME, busy_timeout_ms=_BUSY_MS)
        self._connection.version()  # opens the WAL: it is there as long as this connection is
        self._synced = -1
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kv-sync", daemon=True)
        self._failure = ""
        self._thread.start()

    def stop(self) -> None:
        """Sync what is left and end. Blocks for the sync."""
        self._stopping.set()
        self._thread.join()
        self._connection.close()

    def check(self) -> None:
        """Raise ``KV_UNAVAILABLE`` once a sync has failed: nobody knows what reached the medium, so
        nothing more can be promised."""
        if self._failure:
            raise FsError(Code.KV_UNAVAILABLE, self._failure)

    def sync(self) -> None:
        """Everything committed before is on the medium when this returns. Any thread; blocks.

        Errors:
            FsError: ``KV_UNAVAILABLE``, as ``check`` says.
        """
        self.check()
        try:
            descriptor = os.open(self._wal, os.O_RDWR)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._failure = f"the store is out of service: cannot sync {self._wal}: {error}"
            _log.error(self._failure)
            self.check()

    def _run(self) -> None:
        begun = time.monotonic()
        # A round that took long, at a checkpoint, is followed by the next at once.
        while not self._stopping.wait(max(0.0, begun + SYNC_SECONDS - time.monotonic())):
            begun = time.monotonic()
            if not self._round():
                return
        self._round()

    def _round(self) -> bool:
        try:
            seen = self._connection.data_version()
            if seen != self._synced:
                self.sync()
                self._synced = seen
                self._checkpoint()
        except apsw.Error as error:
            _log.warning("will sync the store again in a second: %s", error)
        except FsError:
            return False
        return True

    def _checkpoint(self) -> None:
        size = self._wal.stat().st_size
        scarce = free_and_total(self._wal.parent)[0] < SCARCE_BYTES
        if size < (SCARCE_CHECKPOINT_BYTES if scarce else CHECKPOINT_BYTES):
            return
        try:
            self._connection.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            if scarce or size >= RESTART_BYTES:
                self._connection.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            _log.debug("another process is at the checkpoint, or a reader holds it up")
