"""What clients did and saw, and whether one copy of each chunk could have answered so.

A write fills cells with numbers that no other write uses, so a read says whose each of its cells
is. An operation whose outcome its client never learned stays possible for ever.

Acknowledged but unflushed writes may be lost when power is lost and the chain has to be revived
from what was on the medium. Such a loss cuts the history of the chunk: what follows begins with
what was found, which must not lack anything that was flushed.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.simulation import checkers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.simulation.store import Content

CELLS = 4


class Kind(enum.Enum):
    READ = "read"
    WRITE = "write"
    TRUNCATE = "truncate"
    REMOVE = "remove"
    FLUSH = "flush"


@dataclass(slots=True)
class Operation:
    client: int
    chain: int
    chunk: bytes
    kind: Kind
    call: float
    offset: int = 0
    length: int = 0
    content: Content = ()
    """Written, or seen."""
    end: float = math.inf
    """Infinite: it may have happened, it may still happen."""
    version: int = 0
    refused: bool = False
    """It has not happened and will not."""

    @property
    def changes(self) -> bool:
        return self.kind not in (Kind.READ, Kind.FLUSH)


@dataclass(frozen=True, slots=True)
class Loss:
    """At ``time`` the chain was revived from what a power cut had left of ``chunks``."""

    time: float
    chunks: dict[bytes, tuple[int, Content]]


@dataclass(slots=True)
class History:
    operations: list[Operation] = field(default_factory=list)
    losses: dict[int, list[Loss]] = field(default_factory=dict)
    """By chain."""

    def violations(self) -> list[str]:
        found: list[str] = []
        by_chunk: dict[bytes, list[Operation]] = {}
        for operation in self.operations:
            if operation.kind is not Kind.FLUSH and not operation.refused:
                by_chunk.setdefault(operation.chunk, []).append(operation)
        for chunk, operations in by_chunk.items():
            losses = self.losses.get(operations[0].chain, [])
            found += self._flushed_is_kept(chunk, operations, losses)
            for initial, epoch in _epochs(chunk, operations, losses):
                found += [f"chunk {chunk!r}: {what}" for what in judge(epoch, initial)]
        return found

    def _flushed_is_kept(
        self, chunk: bytes, operations: Sequence[Operation], losses: Sequence[Loss]
    ) -> Iterable[str]:
        if any(o.kind is Kind.REMOVE for o in operations):
            return
        chain, before = operations[0].chain, -math.inf
        for loss in losses:
            flushed = max(
                (
                    o.call
                    for o in self.operations
                    if o.kind is Kind.FLUSH
                    and o.chain == chain
                    and before < o.call
                    and o.end < loss.time
                ),
                default=-math.inf,
            )
            version, _ = loss.chunks.get(chunk, (0, ()))
            for o in operations:
                if o.changes and before < o.end < flushed and o.version > version:
                    yield f"chunk {chunk!r}: version {o.version} was flushed, found {version}"
            before = loss.time


def _epochs(
    chunk: bytes, operations: Sequence[Operation], losses: Sequence[Loss]
) -> Iterable[tuple[Content, list[Operation]]]:
    initial: Content = ()
    begin = -math.inf
    for loss in (*losses, Loss(math.inf, {})):
        epoch: list[Operation] = []
        for o in operations:
            if o.end <= begin or o.call >= loss.time:
                continue
            if o.call >= begin and o.end < loss.time:
                epoch.append(o)
            elif o.changes:
                epoch.append(replace(o, call=max(o.call, begin), end=math.inf))
        yield initial, epoch
        initial = loss.chunks.get(chunk, (0, ()))[1]
        begin = loss.time


def judge(operations: Sequence[Operation], initial: Content) -> list[str]:
    """What is wrong with the history of one chunk, by both checkers."""
    operations = _relevant(operations)
    found = []
    only_writes = not any(o.kind in (Kind.TRUNCATE, Kind.REMOVE) for o in operations)
    if only_writes and not initial:
        for cell in range(CELLS):
            wrong = checkers.zones(*_register(operations, cell))
            if wrong:
                found.append(f"cell {cell}: {wrong}")
    events = [(o.call, o.end, o) for o in operations]
    ordered = checkers.linearizable(events, initial, apply, _effect)
    if not ordered:
        found.append("not linearizable")
    elif found:
        found.append("but the search finds an order: the checkers disagree")
    return found


def apply(state: Content, operation: Operation) -> Content | None:
    """The chunk after the operation; None if it cannot have been answered so."""
    if operation.kind is Kind.READ:
        return state if state == operation.content else None
    if operation.kind is Kind.REMOVE:
        return ()
    if operation.kind is Kind.TRUNCATE:
        return (*state, *(0,) * (operation.length - len(state)))[: operation.length]
    end = operation.offset + len(operation.content)
    padded = (*state, *(0,) * (operation.offset - len(state)))
    return (*padded[: operation.offset], *operation.content, *padded[end:])


def _effect(operation: Operation) -> tuple[object, ...]:
    return operation.kind, operation.offset, operation.content, operation.length


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without reads that failed, and writes of unknown outcome that nobody saw: that such a write
    happened explains nothing, as whatever was read had been written over it."""
    seen = {cell for o in operations if o.kind is Kind.READ for cell in o.content}
    return [
        o
        for o in operations
        if o.end < math.inf
        or (o.kind is Kind.WRITE and not seen.isdisjoint(o.content))
        or o.kind in (Kind.TRUNCATE, Kind.REMOVE)
    ]


def _register(
    operations: Sequence[Operation], cell: int
) -> tuple[list[checkers.Access], list[checkers.Access]]:
    writes, reads = [], []
    for o in operations:
        if o.kind is Kind.READ:
            value = o.content[cell] if cell < len(o.content) else 0
            reads.append((value, o.call, o.end))
        elif o.offset <= cell < o.offset + len(o.content):
            writes.append((o.content[cell - o.offset], o.call, o.end))
    return writes, reads
