"""The transaction of engines that buffer writes and validate reads at commit (optimistic).

An engine adds three primitives: take the snapshot, read one key of it, read a range of it; and the
commit itself.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.atomic import added, raised
from fireflyfs.kv.base import Transaction
from fireflyfs.kv.buffer import Footprint, Writes
from fireflyfs.kv.limited import check_key, check_range, check_stamped, check_value
from fireflyfs.limits import MAX_KV_TRANSACTION

if TYPE_CHECKING:
    from fireflyfs.kv.buffer import Pair


class BufferedTransaction(Transaction):
    """Everything of ``Transaction`` but where the data is."""

    def __init__(self) -> None:
        self._writes = Writes()
        self._reads = Footprint()
        self._over = False

    @abc.abstractmethod
    async def _take_snapshot(self) -> None:
        """Called before every read: take the snapshot, or check that it is not too old."""

    @abc.abstractmethod
    def _read(self, key: bytes) -> bytes | None: ...

    @abc.abstractmethod
    def _scan(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]: ...

    @abc.abstractmethod
    async def _read_version(self) -> int: ...

    @abc.abstractmethod
    async def _commit(self) -> int: ...

    @abc.abstractmethod
    def _release(self) -> None:
        """Drop the snapshot; called once or more."""

    async def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None:
        self._check(key)
        if self._writes.knows(key):
            return self._writes.values.get(key)
        await self._take_snapshot()
        if not snapshot:
            self._reads.keys.add(key)
        value = self._read(key)
        return self._writes.applied(key, value) if self._writes.steps else value

    async def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        self._check_range(begin, end)
        await self._take_snapshot()
        if self._writes.touched:
            pairs = self._merged(begin, end, limit, reverse)
        else:
            pairs = self._scan(begin, end, limit, reverse)
        if not snapshot and begin < end:
            self._reads.ranges.append(_seen(begin, end, pairs, limit, reverse))
        return pairs

    def set(self, key: bytes, value: bytes) -> None:
        self._check(key)
        check_value(key, value)
        self._writes.put(key, value)

    def clear(self, key: bytes) -> None:
        self._check(key)
        self._writes.put(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self._check_range(begin, end)
        if begin < end:
            self._writes.clear_range(begin, end)

    def add(self, key: bytes, delta: int) -> None:
        self._check(key)
        self._writes.step(key, (added, delta))

    def maximum(self, key: bytes, value: int) -> None:
        self._check(key)
        self._writes.step(key, (raised, value))

    def set_versionstamped_key(self, prefix: bytes, value: bytes) -> None:
        self._check(prefix)
        check_stamped(prefix, value, len(self._writes.stamped))
        self._writes.stamp(prefix, value)

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        self._check_range(begin, end)
        if begin < end:
            self._reads.ranges.append((begin, end))

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        self._check_range(begin, end)
        if begin < end:
            self._writes.touched.ranges.append((begin, end))

    async def commit(self) -> int:
        self._check(b"")
        if self._writes.size > MAX_KV_TRANSACTION:
            raise FsError(
                Code.KV_LIMIT,
                f"transaction of {self._writes.size} bytes, {MAX_KV_TRANSACTION} are the limit",
            )
        try:
            if self._writes.touched or self._writes.stamped:
                return await self._commit()
            return await self._read_version()
        finally:
            self.cancel()

    def cancel(self) -> None:
        self._over = True
        self._release()

    def _merged(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]:
        """A range with the own writes laid over it, by pages: they may hide any number of pairs."""
        found: list[Pair] = []
        while True:
            page = self._scan(begin, end, limit, reverse)
            complete = not limit or len(page) < limit
            low, high = (begin, end) if complete else _seen(begin, end, page, limit, reverse)
            found += self._writes.overlay(low, high, page, reverse)
            if complete or len(found) >= limit:
                return found[:limit] if limit else found
            if reverse:
                end = low
            else:
                begin = high

    def _check(self, key: bytes) -> None:
        if self._over:
            raise FsError(Code.INVALID, "transaction used after its commit or cancel")
        check_key(key)

    def _check_range(self, begin: bytes, end: bytes) -> None:
        self._check(begin)
        check_range(begin, end)


def _seen(begin: bytes, end: bytes, pairs: list[Pair], limit: int, reverse: bool) -> Pair:
    """The part of a range that a read of ``pairs`` tells about: all, or up to the last of them."""
    if not limit or len(pairs) < limit:
        return begin, end
    last = pairs[-1][0]
    return (last, end) if reverse else (begin, last + b"\x00")
