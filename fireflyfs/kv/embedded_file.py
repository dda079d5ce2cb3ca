"""The file of the embedded engine: its schema, and one connection to it.

Tables: ``pairs`` holds the newest value of every key. ``commits`` is the log that optimistic
transactions are validated against: for each version, without gaps, what the commit wrote
(``Footprint.encode``) and when (monotonic clock of this machine). The log is never empty and
reaches back as far as a transaction may live.

SQLite's WAL mode gives readers of any process a stable snapshot beside one writer, and is a
checksummed log: a power cut loses its unsynced tail, and nothing else. What is in it when
a process is killed is in the page cache and stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, cast

import apsw

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.buffer import Footprint
from fireflyfs.limits import MAX_KV_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.kv.buffer import Pair, Writes

FILE_NAME = "kv.sqlite"
"""Nobody else in the process may open this file: closing it would drop SQLite's (POSIX) locks. The
WAL beside it carries no locks."""
APPLICATION_ID = 0x46464B56
"""``FFKV``: the file says whose it is."""
FORMAT = 1
FIRST_VERSION = 1

_SCHEMA = f"""
CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE commits (version INTEGER PRIMARY KEY, at REAL NOT NULL, touched BLOB NOT NULL) STRICT;
INSERT INTO commits VALUES ({FIRST_VERSION}, 0, x'');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""
_OPEN_TIMEOUT_MS = 5000
_CACHE_KIB = 8192
_TRIM_EVERY = 64
_TRIM_AT_ONCE = 4 * _TRIM_EVERY
_KEPT_SECONDS = 2 * MAX_KV_SECONDS

_GET = "SELECT value FROM pairs WHERE key = ?"
_PUT = "INSERT INTO pairs VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_CLEAR = "DELETE FROM pairs WHERE key = ?"
_CLEAR_RANGE = "DELETE FROM pairs WHERE key >= ? AND key < ?"
_SCAN = "SELECT key, value FROM pairs WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_SCAN_BACK = "SELECT key, value FROM pairs WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT ?"
_VERSION = "SELECT max(version) FROM commits"
_LOG = "INSERT INTO commits VALUES (?, ?, ?)"
_LOG_SINCE = "SELECT touched FROM commits WHERE version > ?"
_TRIM = """
DELETE FROM commits WHERE version IN (SELECT version FROM commits ORDER BY version LIMIT ?)
AND version < ? AND (at < ? OR at > ?)
"""


class Connection:
    """One connection, used by one thread at a time; waits ``busy_timeout_ms`` for a lock.

    Methods raise ``apsw.Error``; ``failure`` says what that means.
    """

    def __init__(self, path: Path, *, busy_timeout_ms: int = 0) -> None:
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(busy_timeout_ms)
        self._execute = self._db.cursor().execute
        try:
            self._execute(f"PRAGMA cache_size = -{_CACHE_KIB}").fetchall()
            self._execute("PRAGMA synchronous = NORMAL").fetchall()
            self._execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        except apsw.Error:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def identify(self) -> tuple[int, int, int]:
        """Number of tables, application id and format of the file."""
        return (
            self._execute("SELECT count(*) FROM sqlite_schema").get,
            self._execute("PRAGMA application_id").get,
            self._execute("PRAGMA user_version").get,
        )

    def create_schema(self) -> None:
        self._execute("PRAGMA journal_mode = WAL").fetchall()
        self._execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()

    def begin(self) -> int:
        """Take a snapshot; its version."""
        self._execute("BEGIN")
        try:
            return self.version()
        except apsw.Error:
            self.rollback()
            raise

    def begin_write(self) -> int:
        """Take the write lock; the newest version."""
        self._execute("BEGIN IMMEDIATE")
        return self.version()

    def commit(self) -> None:
        self._execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._execute("ROLLBACK")

    def version(self) -> int:
        version: int = self._execute(_VERSION).get
        return version

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._execute(_GET, (key,)).get
        return value

    def scan(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]:
        query = _SCAN_BACK if reverse else _SCAN
        return cast("list[Pair]", self._execute(query, (begin, end, limit or -1)).fetchall())

    def log(self, version: int, touched: Footprint) -> None:
        """Enter the commit of ``version``. In a snapshot: also takes the write lock, or raises
        ``BusyError`` when somebody else holds it or has committed since."""
        now = time.monotonic()
        self._execute(_LOG, (version, now, touched.encode()))
        if version % _TRIM_EVERY == 0:
            # A time to come is one before the last boot of the machine.
            self._execute(_TRIM, (_TRIM_AT_ONCE, version, now - _KEPT_SECONDS, now))

    def logged_since(self, version: int) -> list[Footprint]:
        return [Footprint.decode(row[0]) for row in self._execute(_LOG_SINCE, (version,))]

    def apply(self, writes: Writes) -> None:
        for cleared in writes.cleared:
            self._execute(_CLEAR_RANGE, cleared)
        for key, value in writes.values.items():
            if value is None:
                self._execute(_CLEAR, (key,))
            else:
                self._execute(_PUT, (key, value))
        for key in writes.steps:
            self._execute(_PUT, (key, writes.applied(key, self.get(key))))

    def data_version(self) -> int:
        """Changes with every commit of any other connection."""
        version: int = self._execute("PRAGMA data_version").get
        return version

    def checkpoint(self, mode: int) -> None:
        self._db.wal_checkpoint(mode=mode)


def prepare_directory(directory: Path) -> None:
    """Make sure that there is a sound store in ``directory``; made if nothing is there.

    One process at a time: it holds a lock on the directory meanwhile. Blocks.

    Errors:
        FsError: ``CONFIG``: no such place, no permission, not a store, another format.
    """
    path = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FsError(Code.CONFIG, f"cannot make a store in {directory}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _prepare_file(path)
        os.fsync(descriptor)
    except apsw.CantOpenError as error:
        raise FsError(Code.CONFIG, f"cannot open the store {path}") from error
    except apsw.Error as error:
        raise FsError(Code.CONFIG, f"{path} is not a sound store") from error
    finally:
        os.close(descriptor)


def _prepare_file(path: Path) -> None:
    connection = Connection(path, busy_timeout_ms=_OPEN_TIMEOUT_MS)
    try:
        tables, owner, version = connection.identify()
        if not tables and not owner:
            connection.create_schema()
        elif owner != APPLICATION_ID:
            raise FsError(Code.CONFIG, f"{path} is not a store of this program; use another place")
        elif version != FORMAT:
            raise FsError(Code.CONFIG, f"{path} has format {version}, this program needs {FORMAT}")
        connection.version()
    finally:
        connection.close()


def failure(error: apsw.Error, doing: str) -> FsError:
    """What an error of the file means; nothing has been committed."""
    if isinstance(error, apsw.FullError):
        return FsError(Code.NO_SPACE, f"no space for the embedded store while {doing}")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return FsError(Code.INTERNAL, f"the embedded store is corrupt, found while {doing}")
    return FsError(Code.KV_UNAVAILABLE, f"the embedded store failed while {doing}")
