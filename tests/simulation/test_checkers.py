"""The two checkers, on known histories and against each other."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest

from tests.simulation.checkers import Access, linearizable, zones
from tests.simulation.history import History, Kind, Loss, Operation

Event = tuple[float, float, tuple[str, int]]


def _step(state: int, operation: tuple[str, int]) -> int | None:
    kind, value = operation
    return value if kind == "w" else state if state == value else None


def search(writes: list[Access], reads: list[Access]) -> bool:
    events: list[Event] = [(call, end, ("w", v)) for v, call, end in writes]
    events += [(call, end, ("r", v)) for v, call, end in reads if end < math.inf]
    return linearizable(events, 0, _step)


def by_trying_all(writes: list[Access], reads: list[Access]) -> bool:
    """The definition itself; unknown writes may be left out."""
    known: list[Event] = [(c, e, ("w", v)) for v, c, e in writes if e < math.inf]
    known += [(c, e, ("r", v)) for v, c, e in reads]
    unknown: list[Event] = [(c, e, ("w", v)) for v, c, e in writes if e == math.inf]
    for chosen in range(1 << len(unknown)):
        events = known + [u for i, u in enumerate(unknown) if chosen >> i & 1]
        if any(_is_order(order) for order in permutations(events)):
            return True
    return False


def _is_order(order: tuple[Event, ...]) -> bool:
    state = 0
    latest = -math.inf
    for call, end, operation in order:
        if end < latest:
            return False
        latest = max(latest, call)
        after = _step(state, operation)
        if after is None:
            return False
        state = after
    return True


INF = math.inf
GOOD: dict[str, tuple[list[Access], list[Access]]] = {
    "nothing": ([], []),
    "one after the other": ([(1, 0, 1), (2, 4, 5)], [(1, 2, 3), (2, 6, 7)]),
    "a read beside a write may see either": ([(1, 0, 9)], [(0, 1, 2), (1, 3, 4)]),
    "two writes at once, in either order": ([(1, 0, 9), (2, 0, 9)], [(2, 10, 11)]),
    "an unknown write takes effect late": ([(1, 0, INF), (2, 1, 2)], [(2, 3, 4), (1, 5, 6)]),
    "an unknown write never happens": ([(1, 0, INF), (2, 1, 2)], [(2, 3, 4), (2, 5, 6)]),
}
BAD: dict[str, tuple[list[Access], list[Access]]] = {
    "a lost write": ([(1, 0, 1)], [(0, 2, 3)]),
    "a stale read": ([(1, 0, 1), (2, 2, 3)], [(1, 4, 5)]),
    "back and forth": ([(1, 0, 9), (2, 0, 9)], [(1, 10, 11), (2, 12, 13)]),
    "read by one, then not by another": ([(1, 0, 9)], [(1, 1, 2), (0, 3, 4)]),
    "from nowhere": ([], [(7, 0, 1)]),
    "from the future": ([(1, 5, 6)], [(1, 0, 1)]),
    "an unknown write comes and goes and comes": (
        [(1, 0, INF), (2, 3, 4)],
        [(1, 1, 2), (2, 5, 6), (1, 7, 8)],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories(name: str) -> None:
    writes, reads = GOOD[name]
    assert search(writes, reads)
    assert zones(writes, reads) is None
    assert by_trying_all(writes, reads)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories(name: str) -> None:
    writes, reads = BAD[name]
    assert not search(writes, reads)
    assert zones(writes, reads) is not None
    assert not by_trying_all(writes, reads)


def _draw(rng: random.Random, size: int) -> tuple[list[Access], list[Access]]:
    writes: list[Access] = []
    reads: list[Access] = []
    span = size * 2
    for value in range(1, rng.randrange(1, size) + 1):
        call = rng.randrange(span) + rng.random()
        end = INF if rng.random() < 0.2 else call + rng.random() * 6
        writes.append((value, call, end))
    for _ in range(size - len(writes)):
        call = rng.randrange(span) + rng.random()
        reads.append((rng.choice([0, *(v for v, _, _ in writes)]), call, call + rng.random() * 6))
    return writes, reads


def test_the_checkers_agree_with_the_definition() -> None:
    rng = random.Random(1)
    outcomes = set()
    for _ in range(400):
        writes, reads = _draw(rng, 5)
        expected = by_trying_all(writes, reads)
        assert search(writes, reads) is expected, (writes, reads)
        assert (zones(writes, reads) is None) is expected, (writes, reads)
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_the_checkers_agree_with_each_other() -> None:
    rng = random.Random(2)
    good = 0
    for _ in range(3000):
        writes, reads = _draw(rng, rng.randrange(6, 14))
        verdict = search(writes, reads)
        assert (zones(writes, reads) is None) is verdict, (writes, reads)
        good += verdict
    assert good > 20


def _operation(kind: Kind, call: float, end: float, *content: int, version: int = 0) -> Operation:
    return Operation(
        1, 1, b"c", kind, call, 0, len(content), tuple(content), end=end, version=version
    )


def test_a_chunk_is_one_object_though_each_of_its_cells_is_in_order() -> None:
    history = History(
        [
            _operation(Kind.WRITE, 0, 9, 10, 11),
            _operation(Kind.WRITE, 0, 9, 20, 21),
            _operation(Kind.READ, 10, 11, 10, 21),
        ]
    )
    assert history.violations() == ["chunk b'c': not linearizable"]


def test_what_was_flushed_must_survive_a_power_cut_and_nothing_else_must() -> None:
    before = [
        _operation(Kind.WRITE, 0, 1, 10, version=1),
        _operation(Kind.FLUSH, 2, 3),
        _operation(Kind.WRITE, 4, 5, 20, version=2),
    ]
    kept = Loss(6, {b"c": (1, (10,))})
    assert not History([*before, _operation(Kind.READ, 7, 8, 10)], {1: [kept]}).violations()
    assert History([*before, _operation(Kind.READ, 7, 8, 20)], {1: [kept]}).violations()
    lost = Loss(6, {})
    assert History([*before, _operation(Kind.READ, 7, 8)], {1: [lost]}).violations()
