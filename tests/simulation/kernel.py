"""Virtual time and processes: a heap of events, and coroutines that wait in it; no threads.

Everything that happens is a callback at a virtual time, ties in the order in which they were asked
for; all chance comes from one generator. So one seed is one history, in any process.

A killed process ends between two events: its coroutines are never resumed (not cancelled: no
``finally`` of theirs runs). A paused one holds back whatever happens to it, and finds it all, in
some order, when it goes on; its clock has gone on meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


class Kernel:
    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.probes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.violations: list[str] = []
        self.transcript: list[str] = []
        self.tracing = tracing
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.coroutines: dict[int, Coroutine[Any, Any, None]] = {}
        """Those that have not ended, by ``id``."""

    def close(self) -> None:
        """Nothing happens any more. Coroutines are closed from the outside in: left to the garbage
        collector, they would complain about each other."""
        self._heap.clear()
        for coroutine in self.coroutines.values():
            coroutine.close()
        self.coroutines.clear()
        self._heap.clear()

    def at(self, delay: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._count), callback))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Until ``done`` (looked at after every event) or the virtual time; True if done."""
        heap = self._heap
        while heap and heap[0][0] <= until and not self.violations:
            self.now, _, callback = heapq.heappop(heap)
            callback()
            if done is not None and done():
                return True
        if not self.violations:
            self.now = max(self.now, until)
        return False

    def trace(self, who: str, what: str, *details: object) -> None:
        if self.tracing:
            rest = " ".join(str(d) for d in details)
            self.transcript.append(f"{self.now:10.4f}  {who:<10} {what} {rest}".rstrip())

    def probe(self, name: str) -> None:
        self.probes[name] += 1

    def violation(self, what: str) -> None:
        self.violations.append(f"at {self.now:.4f}: {what}")
        self.trace("CHECK", what)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability


class Future(Generic[T]):
    """What a coroutine waits for. The first outcome counts."""

    __slots__ = ("_error", "_result", "_waiter", "done")

    def __init__(self) -> None:
        self.done = False
        self._result: T | None = None
        self._error: FsError | None = None
        self._waiter: Callable[[], None] | None = None

    def set(self, result: T) -> None:
        if not self.done:
            self._result = result
            self._end()

    def fail(self, error: FsError) -> None:
        if not self.done:
            self._error = error
            self._end()

    def _end(self) -> None:
        self.done = True
        if self._waiter is not None:
            self._waiter()

    def call_when_done(self, waiter: Callable[[], None]) -> None:
        if self.done:
            waiter()
        else:
            self._waiter = waiter

    def __await__(self) -> Generator[Future[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class Task:
    """A coroutine at work in a process."""

    __slots__ = ("_coroutine", "_process", "cancelled")

    def __init__(self, process: Process, coroutine: Coroutine[Any, Any, None]) -> None:
        self._process = process
        self._coroutine = coroutine
        process.kernel.coroutines[id(coroutine)] = coroutine
        self.cancelled = False
        process.after(0.0, self._advance)

    def cancel(self) -> None:
        self.cancelled = True

    def _advance(self) -> None:
        if self.cancelled:
            return
        try:
            awaited: Future[Any] = self._coroutine.send(None)
        except StopIteration:
            del self._process.kernel.coroutines[id(self._coroutine)]
            return
        awaited.call_when_done(lambda: self._process.after(0.0, self._advance))


class Process:
    """One process: what it does, it does through here, so that it can be killed and paused."""

    def __init__(
        self, kernel: Kernel, name: str, *, offset: float = 0.0, rate: float = 1.0
    ) -> None:
        self.kernel = kernel
        self.name = name
        self.alive = True
        self._offset = offset
        self._rate = rate
        self._held: list[Callable[[], None]] | None = None
        self._tasks: list[Task] = []

    def clock(self) -> float:
        """Seconds of its monotonic clock."""
        return self._offset + self._rate * self.kernel.now

    def after(self, delay: float, callback: Callable[[], None]) -> None:
        """After ``delay`` seconds of its clock, unless it is dead by then."""
        self.kernel.at(delay / self._rate, lambda: self._happen(callback))

    def _happen(self, callback: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self._held is not None:
            self._held.append(callback)
        else:
            callback()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        return Task(self, coroutine)

    async def sleep(self, seconds: float) -> None:
        future: Future[None] = Future()
        self.after(seconds, lambda: future.set(None))
        await future

    def bound(self, future: Future[T], seconds: float, what: str) -> Future[T]:
        """Let it fail with TIMED_OUT after ``seconds``."""
        self.after(seconds, lambda: future.fail(FsError(Code.TIMED_OUT, what)))
        return future

    def kill(self) -> None:
        self.alive = False
        self._held = None

    def pause(self) -> None:
        if self.alive and self._held is None:
            self._held = []

    def resume(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        self.kernel.random.shuffle(held)
        for callback in held:
            self.after(self.kernel.random.random() * 0.001, callback)

    @property
    def paused(self) -> bool:
        return self._held is not None


class Lock:
    """Held by one coroutine of a process at a time, first come first served."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[Future[None]] = []

    async def acquire(self) -> None:
        if self._held:
            future: Future[None] = Future()
            self._waiting.append(future)
            await future
        self._held = True

    def release(self) -> None:
        if self._waiting:
            self._waiting.pop(0).set(None)
        else:
            self._held = False
