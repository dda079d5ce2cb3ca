"""The transactional key-value store as the rest of the system sees it: FoundationDB's semantics.

Ordered byte keys; a transaction reads one snapshot and its own writes, is validated at commit
against every key and range that it read (but not by snapshot reads), and is then applied atomically
(serializable). Three outcomes of a commit: committed; conflict (nothing happened); unknown (it may
or may not have happened, or may happen still a little later). ``transact`` is the one retry loop.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class Transaction(abc.ABC):
    """One transaction; used by one task, committed at most once.

    Keys up to 9.9 kB, values up to 100 kB, 10 MB and 5 seconds in all (``fireflyfs.limits``).
    The snapshot is taken by the first read. Reads see the transaction's own writes, but for
    versionstamped keys, which get their names at the commit. Methods yield only when they have to
    wait (``transact`` yields once for each attempt).

    Errors:
        FsError: ``KV_CONFLICT``, ``KV_TOO_OLD``, ``KV_UNKNOWN_RESULT``, ``KV_UNAVAILABLE`` (all to
        be retried by ``transact``), ``KV_LIMIT``; ``NO_SPACE`` (embedded, nothing happened);
        ``INVALID`` for a range that ends before it begins, and for use after commit or cancel.
    """

    @abc.abstractmethod
    async def get(self, key: bytes, *, snapshot: bool = False) -> bytes | None: ...

    async def get_many(
        self, keys: Sequence[bytes], *, snapshot: bool = False
    ) -> list[bytes | None]:
        """``get`` of each key, in their order; an engine with a network asks for them at once."""
        return [await self.get(key, snapshot=snapshot) for key in keys]

    @abc.abstractmethod
    async def get_range(
        self,
        begin: bytes,
        end: bytes,
        *,
        limit: int = 0,
        reverse: bool = False,
        snapshot: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with ``begin <= key < end``, at most ``limit`` (0: all)."""

    @abc.abstractmethod
    def set(self, key: bytes, value: bytes) -> None: ...

    @abc.abstractmethod
    def clear(self, key: bytes) -> None: ...

    @abc.abstractmethod
    def clear_range(self, begin: bytes, end: bytes) -> None: ...

    @abc.abstractmethod
    def add(self, key: bytes, delta: int) -> None:
        """Add to a little-endian signed 64-bit value (absent: 0) unread: no conflict."""

    @abc.abstractmethod
    def maximum(self, key: bytes, value: int) -> None:
        """Raise a little-endian unsigned 64-bit value to at least ``value``: no conflict."""

    @abc.abstractmethod
    def set_versionstamped_key(self, prefix: bytes, value: bytes) -> None:
        """Set ``prefix`` + 12 bytes of commit version and order: unique and growing."""

    @abc.abstractmethod
    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    @abc.abstractmethod
    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    @abc.abstractmethod
    async def commit(self) -> int:
        """Commit; the commit version (a read-only transaction: its read version)."""

    @abc.abstractmethod
    async def watch(self, key: bytes) -> Callable[[], Awaitable[None]]:
        """A waiter that returns once the value differs from what this transaction sees.

        Take it before the commit, await it after. It may miss a value that comes and goes.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """Give up; releases what the transaction holds. Harmless after a commit."""


class Engine(abc.ABC):
    """A store; opened by its module's ``open_*`` function."""

    @abc.abstractmethod
    def transaction(self) -> Transaction: ...

    def has_room(self) -> bool:
        """Whether the store should grow. Who wants to add names asks, so that on a full disk there
        is room left to record removals; nothing is refused here."""
        return True

    @abc.abstractmethod
    async def flush(self) -> None:
        """Every commit that returned before is on the medium (at once with FoundationDB)."""

    @abc.abstractmethod
    async def close(self) -> None: ...
