"""Two ways to ask whether a history is linearizable: each the other's test.

``linearizable``: the search of Wing and Gong with Lowe's memory, for any object. ``zones``: Gibbons
and Korach's check for a register whose written values are all different, in O(n log n).

An operation whose end is infinite may have happened or not.
"""

from __future__ import annotations

import bisect
import itertools
import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    State = TypeVar("State", bound=Hashable)
O = TypeVar("O")  # noqa: E741

Access = tuple[int, float, float]
"""Value, call, end."""
NOTHING = 0
"""What a register holds before the first write."""


class _Entry:
    """A call or a return in the list of events that are still to be explained."""

    __slots__ = ("before", "match", "next", "number")

    def __init__(self, number: int, match: _Entry | None) -> None:
        self.number = number
        self.match = match
        """Of a call: its return, None if it never returned. Returns have themselves."""
        self.before: _Entry = self
        self.next: _Entry | None = None

    @property
    def is_return(self) -> bool:
        return self.match is self


def linearizable(
    operations: Sequence[tuple[float, float, O]],
    initial: State,
    apply: Callable[[State, O], State | None],
    effect: Callable[[O], Hashable] = id,
) -> bool:
    """Is there an order of (call, end, operation) that respects real time and ``apply``, which says
    the state after an operation or None if its answer is wrong in that state?

    Of operations that may have happened and have the same ``effect``, the one called first is as
    good as the others; and none is needed that changes nothing.
    """
    head = _Entry(-1, None)
    rival = _rivals(operations, effect)
    left = _link(head, operations)
    state, done = initial, 0
    memory: set[tuple[int, State]] = set()
    path: list[tuple[_Entry, State]] = []
    entry = head.next
    while left:
        if entry is not None and not entry.is_return:
            number = entry.number
            after = apply(state, operations[number][2])
            now = done | 1 << number
            if entry.match is None and (after == state or not rival[number] & now):
                entry = entry.next
            elif after is not None and (now, after) not in memory:
                memory.add((now, after))
                path.append((entry, state))
                state, done = after, now
                left -= entry.match is not None
                _lift(entry)
                entry = head.next
            else:
                entry = entry.next
        elif not path:
            return False
        else:
            entry, state = path.pop()
            done &= ~(1 << entry.number)
            left += entry.match is not None
            _put_back(entry)
            entry = entry.next
    return True


def _rivals(
    operations: Sequence[tuple[float, float, O]], effect: Callable[[O], Hashable]
) -> dict[int, int]:
    """Of each operation that may have happened: the bit of the one to try first, or its own."""
    unknown = [i for i, (_, end, _) in enumerate(operations) if end == math.inf]
    unknown.sort(key=lambda i: operations[i][0])
    last: dict[Hashable, int] = {}
    rival: dict[int, int] = {}
    for i in unknown:
        what = effect(operations[i][2])
        rival[i] = 1 << last.get(what, i)
        last[what] = i
    return rival


def _link(head: _Entry, operations: Sequence[tuple[float, float, O]]) -> int:
    """Calls and returns in the order of time (at the same time: calls first); returns how many
    must be explained."""
    events: list[tuple[float, int, _Entry]] = []
    for number, (call, end, _) in enumerate(operations):
        closing = None
        if end < math.inf:
            closing = _Entry(number, None)
            closing.match = closing
            events.append((end, 1, closing))
        events.append((call, 0, _Entry(number, closing)))
    events.sort(key=lambda e: (e[0], e[1], e[2].number))
    last = head
    for _, _, entry in events:
        last.next, entry.before = entry, last
        last = entry
    return sum(end < math.inf for _, end, _ in operations)


def _lift(call: _Entry) -> None:
    for entry in (call, call.match):
        if entry is not None:
            entry.before.next = entry.next
            if entry.next is not None:
                entry.next.before = entry.before


def _put_back(call: _Entry) -> None:
    for entry in (call.match, call):
        if entry is not None:
            entry.before.next = entry
            if entry.next is not None:
                entry.next.before = entry


def zones(writes: Iterable[Access], reads: Iterable[Access]) -> str | None:
    """Why a register cannot have answered so; None if it can.

    The accesses of one value form a cluster; its zone reaches from the first end to the last call
    in it. A forward zone (end before call) is when the register must have held the value; a
    backward one (call before end) leaves room for the value to come and go within it.
    """
    first_end: dict[int, float] = {NOTHING: -math.inf}
    last_call: dict[int, float] = {NOTHING: -math.inf}
    began: dict[int, float] = {NOTHING: -math.inf}
    for value, call, end in writes:
        first_end[value], last_call[value], began[value] = end, call, call
    seen = {NOTHING}
    for value, call, end in reads:
        if end == math.inf:
            continue
        if value not in began:
            return f"{value} was read and never written"
        if end < began[value]:
            return f"{value} was read before it was written"
        seen.add(value)
        first_end[value] = min(first_end[value], end)
        last_call[value] = max(last_call[value], call)
    never_happened = [v for v in began if v not in seen and first_end[v] == math.inf]
    for value in never_happened:
        del began[value]
    return _overlap([(first_end[v], last_call[v], v) for v in began])


def _overlap(clusters: list[tuple[float, float, int]]) -> str | None:
    forward = sorted(c for c in clusters if c[0] < c[1])
    for (_, high, value), (low, _, other) in itertools.pairwise(forward):
        if low < high:
            return f"{value} and {other} were both there between {low:g} and {high:g}"
    lows = [low for low, _, _ in forward]
    for end, call, value in clusters:
        at = bisect.bisect_left(lows, call) - 1
        if end >= call and at >= 0 and end < forward[at][1]:
            return f"{value} was there while {forward[at][2]} had to be"
    return None
