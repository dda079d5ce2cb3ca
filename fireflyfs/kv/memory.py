"""The store in memory, with the same semantics and with faults on demand: tests and simulation.

Every key keeps its versions of the last 5 seconds; a log of the commits of that time is what reads
are validated against.
"""

from __future__ import annotations

import bisect
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.base import Engine
from fireflyfs.kv.buffered import BufferedTransaction
from fireflyfs.kv.watches import Watches
from fireflyfs.limits import MAX_KV_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.buffer import Footprint, Pair, Writes


@dataclass(frozen=True, slots=True)
class Faults:
    """How often (0 to 1) commits fail without a reason, and how long things take."""

    conflict: float = 0.0
    unknown: float = 0.0
    """Commits whose result is unknown; every second of them has happened."""
    delay: float = 0.0
    """Seconds, at most, before the snapshot is taken, before and after the commit."""


@dataclass(frozen=True, slots=True)
class _Commit:
    version: int
    time: float
    touched: Footprint


class MemoryEngine(Engine):
    """A store that lives and dies with this object.

    ``rng`` draws the faults: with the same seed and the same tasks the same happens.
    """

    def __init__(self, rng: random.Random | None = None, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        """May be replaced while the store is in use."""
        self.version = 1
        self.watches = Watches()
        self._rng = rng or random.Random(0)
        self._keys: list[bytes] = []
        self._history: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self._log: deque[_Commit] = deque()
        self._closed = False

    def transaction(self) -> MemoryTransaction:
        self._check_open()
        return MemoryTransaction(self)

    async def flush(self) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def delay(self) -> None:
        self._check_open()
        if self.faults.delay:
            await trio.sleep(self._rng.uniform(0, self.faults.delay))

    def draw(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def read(self, key: bytes, version: int) -> bytes | None:
        value = None
        for written, candidate in self._history.get(key, ()):
            if written > version:
                break
            value = candidate
        return value

    def scan(self, version: int, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]:
        low, high = bisect.bisect_left(self._keys, begin), bisect.bisect_left(self._keys, end)
        found: list[Pair] = []
        for at in range(high - 1, low - 1, -1) if reverse else range(low, high):
            value = self.read(self._keys[at], version)
            if value is not None:
                found.append((self._keys[at], value))
                if len(found) == limit:
                    break
        return found

    def conflicts(self, reads: Footprint, version: int) -> bool:
        return any(c.version > version and c.touched.meets(reads) for c in self._log)

    def apply(self, transaction: MemoryTransaction) -> int:
        """Make the writes of a validated transaction the next version."""
        writes = transaction.writes
        self.version += 1
        writes.name_stamped(self.version)
        for begin, end in writes.cleared:
            for key, _ in self.scan(self.version, begin, end, 0, False):
                self._put(key, None)
        for key, value in writes.values.items():
            self._put(key, value)
        for key in writes.steps:
            self._put(key, writes.applied(key, self.read(key, self.version)))
        self._log.append(_Commit(self.version, trio.current_time(), writes.touched))
        self._trim()
        self.watches.wake(writes.touched)
        return self.version

    def _put(self, key: bytes, value: bytes | None) -> None:
        history = self._history.get(key)
        if history is None:
            bisect.insort(self._keys, key)
            history = self._history[key] = []
        if history and history[-1][0] == self.version:
            history.pop()
        history.append((self.version, value))

    def _trim(self) -> None:
        horizon = trio.current_time() - MAX_KV_SECONDS
        while self._log and self._log[0].time < horizon:
            commit = self._log.popleft()
            touched = set(commit.touched.keys)
            for begin, end in commit.touched.ranges:
                low = bisect.bisect_left(self._keys, begin)
                touched.update(self._keys[low : bisect.bisect_left(self._keys, end)])
            for key in touched:
                self._forget(key, commit.version)

    def _forget(self, key: bytes, version: int) -> None:
        """Drop the versions of a key that no snapshot from ``version`` on can see."""
        history = self._history.get(key)
        if history is None:
            return
        while len(history) > 1 and history[1][0] <= version:
            del history[0]
        if len(history) == 1 and history[0][1] is None and history[0][0] <= version:
            del self._history[key]
            del self._keys[bisect.bisect_left(self._keys, key)]

    def _check_open(self) -> None:
        if self._closed:
            raise FsError(Code.KV_UNAVAILABLE, "the store in memory is closed")


class MemoryTransaction(BufferedTransaction):
    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__()
        self._engine = engine
        self._version: int | None = None
        self._started = 0.0

    @property
    def writes(self) -> Writes:
        return self._writes

    async def watch(self, key: bytes) -> Callable[[], Awaitable[None]]:
        seen = await self.get(key, snapshot=True)
        engine = self._engine

        async def changed() -> bool:
            return engine.read(key, engine.version) != seen

        return lambda: engine.watches.wait(key, changed)

    async def _take_snapshot(self) -> None:
        if self._version is None:
            await self._engine.delay()
            self._version = self._engine.version
            self._started = trio.current_time()
        self._check_age()

    def _read(self, key: bytes) -> bytes | None:
        assert self._version is not None
        return self._engine.read(key, self._version)

    def _scan(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[Pair]:
        assert self._version is not None
        return self._engine.scan(self._version, begin, end, limit, reverse)

    async def _read_version(self) -> int:
        await self._take_snapshot()
        assert self._version is not None
        return self._version

    async def _commit(self) -> int:
        engine = self._engine
        await engine.delay()
        self._check_age()
        if engine.draw(engine.faults.conflict):
            raise FsError(Code.KV_CONFLICT, "injected conflict")
        unknown = engine.draw(engine.faults.unknown)
        if unknown and engine.draw(0.5):
            raise FsError(Code.KV_UNKNOWN_RESULT, "injected unknown result")
        if self._version is not None and engine.conflicts(self._reads, self._version):
            raise FsError(Code.KV_CONFLICT, "what was read has changed")
        version = engine.apply(self)
        with trio.CancelScope(shield=True):
            await engine.delay()
        if unknown:
            raise FsError(Code.KV_UNKNOWN_RESULT, "injected unknown result")
        return version

    def _release(self) -> None:
        pass

    def _check_age(self) -> None:
        if self._version is not None and trio.current_time() - self._started > MAX_KV_SECONDS:
            raise FsError(Code.KV_TOO_OLD, f"transaction older than {MAX_KV_SECONDS:g} s")
