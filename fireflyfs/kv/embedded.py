"""The durable store of one machine: SQLite in WAL mode, shared by several processes at once.

A transaction reads from a snapshot of one connection and buffers its writes. At the commit the
snapshot becomes the write transaction if nobody has committed since (SQLite says so): the fast
path. Otherwise the snapshot is dropped, the write lock taken, and everything that was committed
since is compared with what was read (``commits`` in ``embedded_file``). Reads and commits are
microseconds of system calls without a sync and run in the event loop; a lock of another process is
never waited for but by sleeping. Within one process a commit has no point of interruption, so its
transactions meet each other only as snapshots, never as locks.

Durability: atomic and ordered always; survives ``kill -9`` at once; survives a power cut when
``flush`` has returned, or after a second.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, TypeVar

import apsw
import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.base import Engine
from fireflyfs.kv.buffered import BufferedTransaction
from fireflyfs.kv.embedded_file import FILE_NAME, Connection, failure, prepare_directory
from fireflyfs.kv.embedded_sync import Syncer, free_and_total
from fireflyfs.kv.watches import Watches
from fireflyfs.limits import MAX_KV_SECONDS, MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fireflyfs.kv.buffer import Pair, Writes

T = TypeVar("T")

WATCH_POLL = 0.02
"""Seconds between two looks for commits of other processes."""
_IDLE_CONNECTIONS = 8
_RESERVED_PART = 64
_MAX_RESERVE = 128 * MIB
"""Less than storage nodes leave free of the same disk (``storage_service.store.space``)."""
_BUSY_PAUSE = 0.002
_BUSY_TURNS = 16

_log = logging.getLogger(__name__)


async def open_embedded(directory: Path) -> EmbeddedEngine:
    """Open the store in a local directory, made if it is not there.

    Errors:
        FsError: ``CONFIG``: no such place, no permission, not a store, a newer format.
    """
    return await trio.to_thread.run_sync(_open, directory)


def _open(directory: Path) -> EmbeddedEngine:
    prepare_directory(directory)
    try:
        syncer = Syncer(directory)
    except apsw.Error as error:
        raise FsError(Code.CONFIG, f"cannot open the store in {directory}") from error
    return EmbeddedEngine(directory, syncer)


class EmbeddedEngine(Engine):
    """See the module; opened by ``open_embedded``. Not to be carried over a fork."""

    def __init__(self, directory: Path, syncer: Syncer) -> None:
        self.watches = Watches()
        self._directory = directory
        self._syncer = syncer
        self._idle: list[Connection] = []
        self._reading: dict[EmbeddedTransaction, None] = {}
        """Transactions that hold a snapshot, oldest first."""
        self._flush_lock = trio.Lock()
        self._flushes_begun = 0
        self._flushes_done = 0
        self._closed = False

    def transaction(self) -> EmbeddedTransaction:
        self.check()
        return EmbeddedTransaction(self)

    def has_room(self) -> bool:
        free, total = free_and_total(self._directory)
        return free >= min(_MAX_RESERVE, total // _RESERVED_PART)

    async def flush(self) -> None:
        """A sync that began after the call; one serves all that wait for it."""
        self.check()
        wanted = self._flushes_begun + 1
        async with self._flush_lock:
            if self._flushes_done >= wanted:
                return
            self._flushes_begun += 1
            await trio.to_thread.run_sync(self._syncer.sync)
            self._flushes_done = self._flushes_begun

    async def close(self) -> None:
        """Ends what is open, makes all durable and releases the files. Harmless again."""
        if self._closed:
            return
        self._closed = True
        for transaction in list(self._reading):
            transaction.cancel()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close)

    def check(self) -> None:
        if self._closed:
            raise FsError(Code.KV_UNAVAILABLE, f"the store in {self._directory} is closed")
        self._syncer.check()

    def connection(self) -> Connection:
        # The one used last: its page cache is warm, and valid if nobody else committed.
        self.check()
        return self._idle.pop() if self._idle else Connection(self._directory / FILE_NAME)

    def give_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except apsw.Error as error:
            # Whoever met the failure reports it; a new connection starts clean.
            _log.warning("drops a connection that cannot roll back: %s", error)
            connection.close()
            return
        if self._closed or len(self._idle) == _IDLE_CONNECTIONS:
            connection.close()
        else:
            self._idle.append(connection)

    def reads(self, transaction: EmbeddedTransaction) -> None:
        """Note a new snapshot. Snapshots that outlived their time would keep the WAL from starting
        over, so whoever forgot one loses it here."""
        self._reading[transaction] = None
        while (oldest := next(iter(self._reading))).too_old():
            oldest.end_snapshot()

    def read_no_more(self, transaction: EmbeddedTransaction) -> None:
        self._reading.pop(transaction, None)

    def _close(self) -> None:
        self._syncer.stop()
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class EmbeddedTransaction(BufferedTransaction):
    """Holds a connection from its first read on, until commit or cancel."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        super().__init__()
        self._engine = engine
        self._snapshot: Connection | None = None
        self._version: int | None = None
        """Of the snapshot, also when that is gone."""
        self._started = 0.0

    def too_old(self) -> bool:
        return trio.current_time() - self._started > MAX_KV_SECONDS

    def end_snapshot(self) -> None:
        connection, self._snapshot = self._snapshot, None
        if connection is not None:
            self._engine.read_no_more(self)
            self._engine.give_back(connection)

    async def watch(self, key: bytes) -> Callable[[], Awaitable[None]]:
        seen = await self.get(key, snapshot=True)
        engine = self._engine

        async def changed() -> bool:
            transaction = engine.transaction()
            try:
                return await transaction.get(key, snapshot=True) != seen
            finally:
                transaction.cancel()

        return lambda: engine.watches.wait(key, changed, every=WATCH_POLL)

    async def _take_snapshot(self) -> None:
        if self._snapshot is not None and not self.too_old():
            return
        if self._version is not None:
            raise FsError(Code.KV_TOO_OLD, f"transaction older than {MAX_KV_SECONDS:g} s")
        await self._unless_busy(self._begin, "taking a snapshot")

    def _begin(self) -> None:
        connection = self._engine.connection()
        try:
            self._version = connection.begin()
        except BaseException:
            self._engine.give_back(connection)
            raise
        self._snapshot = connection
        self._started = trio.current_time()
        self._engine.reads(self)

    def _read(self, key: bytes) -> bytes | None:
        assert self._snapshot is not None
        try:
            return self._snapshot.get(key)
        except apsw.Error as error:
            raise failure(error, "reading") from error

    def _scan(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]:
        assert self._snapshot is not None
        try:
            return self._snapshot.scan(begin, end, limit, reverse)
        except apsw.Error as error:
            raise failure(error, "reading") from error

    async def _read_version(self) -> int:
        await self._take_snapshot()
        assert self._version is not None
        return self._version

    async def _commit(self) -> int:
        if self._version is not None:
            await self._take_snapshot()
        version = self._commit_at_once()
        if version is None:
            version = await self._unless_busy(self._commit_late, "waiting for the write lock")
        self._engine.watches.wake(self._writes.touched)
        return version

    def _commit_at_once(self) -> int | None:
        """The fast path: the commit version, or None when somebody else committed or is about to
        (then the snapshot is gone and nothing has happened)."""
        if self._snapshot is None or self._version is None:
            return None
        if self._writes.stamped:  # their names need a version that is certain
            self.end_snapshot()
            return None
        self._engine.check()
        version = self._version + 1
        try:
            self._snapshot.log(version, self._writes.touched)
        except apsw.BusyError:
            self.end_snapshot()
            return None
        except apsw.Error as error:
            raise failure(error, "writing") from error
        _finish(self._snapshot, self._writes)
        return version

    def _commit_late(self) -> int:
        connection = self._engine.connection()
        try:
            newest = connection.begin_write()
            self._validate(connection, newest)
            self._writes.name_stamped(newest + 1)
            connection.log(newest + 1, self._writes.touched)
            _finish(connection, self._writes)
        finally:
            self._engine.give_back(connection)
        return newest + 1

    def _validate(self, connection: Connection, newest: int) -> None:
        if self._version is None or self._version == newest or not self._reads:
            return
        since = connection.logged_since(self._version)
        if len(since) != newest - self._version:
            raise FsError(Code.KV_TOO_OLD, "commits since the snapshot are no longer known")
        if any(self._reads.meets(touched) for touched in since):
            raise FsError(Code.KV_CONFLICT, "what was read has changed")

    async def _unless_busy(self, action: Callable[[], T], doing: str) -> T:
        """Run a synchronous step, again while another process is at a commit. That takes less than
        the shortest sleep, so at first this only lets other tasks run: who sleeps a millisecond
        finds twenty commits behind its snapshot, and loses every race for a busy key."""
        deadline = trio.current_time() + MAX_KV_SECONDS
        turns = _BUSY_TURNS
        while True:
            try:
                return action()
            except apsw.BusyError as error:
                if trio.current_time() > deadline:
                    raise FsError(
                        Code.KV_UNAVAILABLE,
                        f"another process holds the store's lock; gave up after "
                        f"{MAX_KV_SECONDS:g} s of {doing}",
                    ) from error
            except apsw.Error as error:
                raise failure(error, doing) from error
            if turns:
                turns -= 1
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(random.uniform(0, _BUSY_PAUSE))

    def _release(self) -> None:
        self.end_snapshot()


def _finish(connection: Connection, writes: Writes) -> None:
    """Apply and commit what the write lock is held for."""
    try:
        connection.apply(writes)
    except apsw.Error as error:
        raise failure(error, "writing") from error
    try:
        connection.commit()
    except apsw.FullError as error:
        raise failure(error, "committing") from error
    except apsw.Error as error:
        # The commit record may have reached the file, and count after a crash.
        raise FsError(Code.KV_UNKNOWN_RESULT, "the embedded store failed to commit") from error
