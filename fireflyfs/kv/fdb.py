"""The store on FoundationDB: the production engine.

The native client buffers writes, reads through them and validates at commit, with the semantics
that ``base`` describes; this only crosses between its network thread and trio, puts the
namespace's name before every key, and says in our codes what failed.

The name (``fdb_place``) is put before keys and cut off here and nowhere else.

The client's own back-off (``on_error``) is not used: ``transact`` is the one retry loop, so that an
attempt costs the same rules on every engine; each attempt is a new native transaction. Where one
would wait for a cluster that is not there, the client's timeout ends it.

Versionstamped keys are handed to the client at the commit: before, it would refuse every read of
the range that they may fall into.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.kv import fdb_binding
from fireflyfs.kv.atomic import pack_unsigned
from fireflyfs.kv.base import Engine, Transaction
from fireflyfs.kv.fdb_binding import settle, settle_all, translated
from fireflyfs.kv.limited import check_key, check_range, check_stamped, check_value
from fireflyfs.kv.retry import RETRIED
from fireflyfs.limits import MAX_KV_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fireflyfs.kv.fdb_place import Place

TIMEOUT = MAX_KV_SECONDS + 1.0
"""Seconds until a transaction is given up that gets no answer."""
_WATCH_PAUSE = 0.5
_ORDER = struct.Struct(">H")
_POSITION = struct.Struct("<I")
_U64 = (1 << 64) - 1


async def open_fdb(place: Place) -> FdbEngine:
    """Open a namespace. Does not wait for the cluster: until it answers, transactions fail.

    Errors:
        FsError: ``CONFIG``: no such cluster file, or one that is none; no binding or no client.
    """
    return await trio.to_thread.run_sync(_open, place)


def _open(place: Place) -> FdbEngine:
    try:
        place.cluster_file.read_bytes()
    except OSError as error:
        raise FsError(
            Code.CONFIG, f"cannot read the cluster file {place.cluster_file}: {error.strerror}"
        ) from None
    binding = fdb_binding.load()
    try:
        with translated(binding, "opening"):
            database = binding.open(str(place.cluster_file))
            database.options.set_transaction_timeout(int(TIMEOUT * 1000))
    except FsError as error:
        raise FsError(Code.CONFIG, f"cannot use {place.cluster_file}") from error
    return FdbEngine(place, binding, database)


class FdbEngine(Engine):
    """See the module; opened by ``open_fdb``. The client's network thread is the process's: it ends
    with that, whatever is closed."""

    def __init__(
        self, place: Place, binding: fdb_binding.Binding, database: fdb_binding.Database
    ) -> None:
        self.place = place
        self.binding = binding
        self._database = database
        self._closed = False

    def transaction(self) -> FdbTransaction:
        self._check()
        return FdbTransaction(self)

    async def flush(self) -> None:
        """Nothing to do: what is committed is on the disks of the transaction logs."""
        self._check()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()

    def create(self) -> fdb_binding.Transaction:
        self._check()
        with translated(self.binding, "beginning"):
            return self._database.create_transaction()

    async def wait_for_change(self, key: bytes, seen: bytes | None) -> None:
        """Return once the value of a whole key differs from ``seen``. Waits for a cluster that is
        not there; a watch that was lost is set again."""
        while True:
            try:
                if await self._watch_once(key, seen):
                    return
            except FsError as error:
                if error.code not in RETRIED:
                    raise
                await trio.sleep(_WATCH_PAUSE)

    async def _watch_once(self, key: bytes, seen: bytes | None) -> bool:
        """True if the value differs now, False when the watch was triggered."""
        native = self.create()
        with translated(self.binding, "watching"):
            native.options.set_timeout(0)  # none: a watch waits as long as it takes
            value = native.snapshot.get(key)
            await settle(value)
            if value.value != seen:
                return True
            changed = native.watch(key)
            try:
                committed = native.commit()  # only then the watch is set
                await settle(committed)
                committed.wait()
                await settle(changed)
                changed.wait()
            finally:
                changed.cancel()
        return False

    def _check(self) -> None:
        if self._closed:
            raise FsError(Code.KV_UNAVAILABLE, f"the store {self.place} is closed")


class FdbTransaction(Transaction):
    """The native transaction is made by the first use: its time is counted from there, by us, for
    the servers let one live up to some seconds longer, as it happens."""

    def __init__(self, engine: FdbEngine) -> None:
        self._engine = engine
        self._binding = engine.binding
        self._prefix = engine.place.prefix
        self._native: fdb_binding.Transaction | None = None
        self._started = 0.0
        self._stamped: list[tuple[bytes, bytes]] = []
        self._writes = False
        self._over = False

    async def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        future = self._reader(snapshot).get(self._full(key))
        await settle(future)
        with translated(self._binding, "reading"):
            return future.value

    async def get_many(
        self, keys: Sequence[bytes], *, snapshot: bool = False
    ) -> list[bytes | None]:
        reader = self._reader(snapshot)
        futures = [reader.get(key) for key in [self._full(key) for key in keys]]
        await settle_all(futures)
        with translated(self._binding, "reading"):
            return [future.value for future in futures]

    async def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        reader = self._reader(snapshot)
        check_range(begin, end)
        if begin == end:
            return []
        selectors, modes = self._binding.KeySelector, self._binding.StreamingMode
        low = selectors.first_greater_or_equal(self._prefix + begin)
        high = selectors.first_greater_or_equal(self._prefix + end)
        mode = modes.exact if limit else modes.want_all
        cut = len(self._prefix)
        pairs: list[tuple[bytes, bytes]] = []
        batches = 0
        while True:
            batches += 1
            left = limit - len(pairs) if limit else 0
            future = reader._get_range(low, high, left, mode, batches, reverse)
            await settle(future)
            with translated(self._binding, "reading a range"):
                found, count, more = future.wait()
            pairs += [(pair.key[cut:], pair.value) for pair in found]
            if not more or not count or len(pairs) == limit:
                return pairs
            if reverse:
                high = selectors.first_greater_or_equal(found[-1].key)
            else:
                low = selectors.first_greater_than(found[-1].key)

    def set(self, key: bytes, value: bytes) -> None:
        check_value(key, value)
        self._writer().set(self._full(key), value)

    def clear(self, key: bytes) -> None:
        self._writer().clear(self._full(key))

    def clear_range(self, begin: bytes, end: bytes) -> None:
        check_range(begin, end)
        if begin < end:
            self._writer().clear_range(self._prefix + begin, self._prefix + end)

    def add(self, key: bytes, delta: int) -> None:
        self._writer().add(self._full(key), pack_unsigned(delta & _U64))

    def maximum(self, key: bytes, value: int) -> None:
        self._writer().max(self._full(key), pack_unsigned(value))

    def set_versionstamped_key(self, prefix: bytes, value: bytes) -> None:
        check_stamped(prefix, value, len(self._stamped))
        self._writer()
        self._stamped.append((prefix, value))

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(begin, end)
        native = self._begun()
        if begin < end:
            with translated(self._binding, "adding a read conflict"):
                native.add_read_conflict_range(self._prefix + begin, self._prefix + end)

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(begin, end)
        if begin < end:
            with translated(self._binding, "adding a write conflict"):
                self._writer().add_write_conflict_range(self._prefix + begin, self._prefix + end)

    async def commit(self) -> int:
        native = self._begun()
        self._over = True
        try:
            if not self._writes:
                future = native.get_read_version()
                await settle(future)
                with translated(self._binding, "reading"):
                    return future.wait()
            self._name_stamped(native)
            done = native.commit()
            await settle(done)
            with translated(self._binding, "committing", committing=True):
                done.wait()
                return native.get_committed_version()
        finally:
            self._native = None

    async def watch(self, key: bytes) -> Callable[[], Awaitable[None]]:
        """The client's own watch belongs to a transaction of its own, once it is waited for: one of
        this transaction would make it conflict with writers of the key, and would be lost by an
        unknown result."""
        seen = await self.get(key, snapshot=True)
        engine, full = self._engine, self._full(key)
        return lambda: engine.wait_for_change(full, seen)

    def cancel(self) -> None:
        self._over = True
        native, self._native = self._native, None
        if native is not None:
            native.cancel()

    def _name_stamped(self, native: fdb_binding.Transaction) -> None:
        """The client fills ten bytes in at the position that the last four bytes tell; they are the
        same for all keys of a transaction, so the order is ours to add."""
        for order, (prefix, value) in enumerate(self._stamped):
            start = self._prefix + prefix
            key = start + bytes(10) + _ORDER.pack(order) + _POSITION.pack(len(start))
            native.set_versionstamped_key(key, value)

    def _full(self, key: bytes) -> bytes:
        check_key(key)
        return self._prefix + key

    def _reader(self, snapshot: bool) -> fdb_binding.TransactionRead:
        native = self._begun()
        return native.snapshot if snapshot else native

    def _writer(self) -> fdb_binding.Transaction:
        native = self._begun()
        self._writes = True
        return native

    def _begun(self) -> fdb_binding.Transaction:
        if self._over:
            raise FsError(Code.INVALID, "transaction used after its commit or cancel")
        now = trio.current_time()
        if self._native is None:
            self._native, self._started = self._engine.create(), now
        if now - self._started > MAX_KV_SECONDS:
            raise FsError(Code.KV_TOO_OLD, f"transaction older than {MAX_KV_SECONDS:g} s")
        return self._native
