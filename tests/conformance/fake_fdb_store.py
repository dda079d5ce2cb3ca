"""A cluster of FoundationDB behind the fake client: one dict for each version of the last seconds,
optimistic concurrency by ranges of keys. Everything runs in the client's network thread, but for
the settings that a test makes while nothing does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fireflyfs.kv.atomic import added, raised, unpack_unsigned

Range = tuple[bytes, bytes]
Op = tuple[str, bytes, bytes]
Setter = Callable[[int], None]

MAX_SECONDS = 5.0
MAX_KEY, MAX_VALUE, MAX_TRANSACTION = 10_000, 100_000, 10_000_000
BATCH = 5
"""Pairs in one batch of a range read without a limit: small, so that tests need several."""
EXACT = 0


class FdbFailure(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Cluster:
    clock: Callable[[], float] = time.monotonic
    is_down: bool = False
    """Nothing answers; who has a timeout meets it at once."""
    next_errors: deque[tuple[int, bool]] = field(default_factory=deque)
    """For each of the next commits: the code it fails with (0: none), and whether it happens."""
    timeout: int = 0
    """Milliseconds, for new transactions."""
    version: int = 1000
    states: list[tuple[int, float, dict[bytes, bytes]]] = field(
        default_factory=lambda: [(0, 0.0, {})]
    )
    commits: list[tuple[int, list[Range]]] = field(default_factory=list)
    watches: list[tuple[bytes, bytes | None, Setter]] = field(default_factory=list)

    def state(self, version: int) -> dict[bytes, bytes]:
        return next(data for at, _, data in reversed(self.states) if at <= version)

    def apply(self, ops: list[Op], extra: list[Range], now: float) -> int:
        self.version += 30_000
        stamp = self.version.to_bytes(8, "big") + b"\x00\x07"
        data = dict(self.states[-1][2])
        named = [(k, stamped(key, stamp) if k == "stamp" else key, p) for k, key, p in ops]
        for op in named:
            perform(data, op)
        self.states.append((self.version, now, data))
        self.commits.append((self.version, [*map(touched, named), *extra]))
        while len(self.states) > 1 and self.states[1][1] < now - 2 * MAX_SECONDS:
            del self.states[0]
        waiting, self.watches = self.watches, []
        for key, seen, trigger in waiting:
            if data.get(key) == seen:
                self.watches.append((key, seen, trigger))
            else:
                trigger(0)
        return self.version


class FdbTransaction:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.timeout = cluster.timeout
        self.reads: list[Range] = []
        self.extra_writes: list[Range] = []
        self.committed_version = -1
        self._ops: list[Op] = []
        self._watches: list[tuple[bytes, Setter]] = []
        self._version: int | None = None
        self._begun = 0.0
        self._error = 0

    def begin(self, now: float) -> int:
        self._check()
        if self._version is None:
            self.cluster.version += 1  # time passes, whether or not anybody commits
            self._version, self._begun = self.cluster.version, now
        return self._version

    def get(self, key: bytes, snapshot: bool, now: float) -> bytes | None:
        view = self._view(now)
        if not snapshot and not self._knows(key):
            self.reads.append((key, key + b"\x00"))
        return view.get(key)

    def get_range(
        self,
        begin: bytes,
        end: bytes,
        limit: int,
        mode: int,
        snapshot: bool,
        reverse: bool,
        now: float,
    ) -> tuple[list[tuple[bytes, bytes]], bool]:
        if mode == EXACT and not limit:
            raise FdbFailure(2210)  # exact_mode_without_limits
        view = self._view(now)
        pairs = sorted((p for p in view.items() if begin <= p[0] < end), reverse=reverse)
        size = limit if mode == EXACT else min(limit or BATCH, BATCH)
        page = pairs[:size]
        if page and len(page) == size:
            last = page[-1][0]
            begin, end = (last, end) if reverse else (begin, last + b"\x00")
        if not snapshot:
            self.reads.append((begin, end))
        return page, len(pairs) > size

    def write(self, kind: str, key: bytes, param: bytes) -> None:
        if len(key) > MAX_KEY:
            self._error = self._error or 2102
        if kind != "clear_range" and len(param) > MAX_VALUE:
            self._error = self._error or 2103
        if kind == "clear_range" and key > param:
            self._error = self._error or 2005
        self._ops.append((kind, key, param))

    def watch(self, key: bytes, now: float, trigger: Setter) -> None:
        try:
            seen = self.get(key, False, now)
        except FdbFailure as failure:
            trigger(failure.code)
        else:
            self._watches.append((key, trigger))
            self._seen = seen

    def commit(self, now: float) -> None:
        try:
            self._commit(now)
        except FdbFailure as failure:
            for _, trigger in self._watches:
                trigger(failure.code)
            raise
        newest = self.cluster.states[-1][2]
        for key, trigger in self._watches:
            if newest.get(key) != self._seen:
                trigger(0)
            else:
                self.cluster.watches.append((key, self._seen, trigger))

    def cancel(self) -> None:
        self._error = 1025

    def _commit(self, now: float) -> None:
        self._check()
        if not self._ops and not self.extra_writes:
            return
        if sum(len(key) + len(param) for _, key, param in self._ops) > MAX_TRANSACTION:
            raise FdbFailure(2101)
        code, happens = 0, True
        if self.cluster.next_errors:
            code, happens = self.cluster.next_errors.popleft()
        if self._version is not None and self.reads:
            self._check_age(now)
            for version, writes in self.cluster.commits:
                if version > self._version and any(meet(r, w) for r in self.reads for w in writes):
                    raise FdbFailure(1020)
        if happens:
            self.committed_version = self.cluster.apply(self._ops, self.extra_writes, now)
        if code:
            raise FdbFailure(code)

    def _view(self, now: float) -> dict[bytes, bytes]:
        version = self.begin(now)
        self._check_age(now)
        if any(kind == "stamp" for kind, _, _ in self._ops):
            raise FdbFailure(1036)  # accessed_unreadable
        data = dict(self.cluster.state(version))
        for op in self._ops:
            perform(data, op)
        return data

    def _knows(self, key: bytes) -> bool:
        return any(
            kind in ("set", "clear_range") and begin <= key < end
            for kind, (begin, end) in ((op[0], touched(op)) for op in self._ops)
        )

    def _check(self) -> None:
        if self._error:
            raise FdbFailure(self._error)

    def _check_age(self, now: float) -> None:
        if now - self._begun > MAX_SECONDS:
            raise FdbFailure(1007)


def perform(data: dict[bytes, bytes], op: Op) -> None:
    match op:
        case "set" | "stamp", key, value:
            data[key] = value
        case "clear_range", begin, end:
            for key in [key for key in data if begin <= key < end]:
                del data[key]
        case "add", key, param:
            data[key] = added(data.get(key), unpack_unsigned(param))
        case "max", key, param:
            data[key] = raised(data.get(key), unpack_unsigned(param))


def touched(op: Op) -> Range:
    kind, key, param = op
    return (key, param) if kind == "clear_range" else (key, key + b"\x00")


def stamped(key: bytes, stamp: bytes) -> bytes:
    key, position = key[:-4], int.from_bytes(key[-4:], "little")
    assert position + len(stamp) <= len(key)
    return key[:position] + stamp + key[position + len(stamp) :]


def meet(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]
