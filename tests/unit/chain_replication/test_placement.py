"""Chains over targets: complete, even, and spreading the load of a lost node."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_replication.placement import place
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import NodeId, TargetId, target_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Placed = tuple[tuple[NodeId, TargetId], ...]


def targets(counts: Sequence[int]) -> dict[NodeId, list[TargetId]]:
    return {
        NodeId(n): [target_id(NodeId(n), slot) for slot in range(count)]
        for n, count in enumerate(counts, 1)
    }


def meetings(chains: Sequence[Placed]) -> Counter[tuple[NodeId, NodeId]]:
    return Counter((a, b) for chain in chains for a, _ in chain for b, _ in chain if a != b)


def heads(chains: Sequence[Placed], nodes: Mapping[NodeId, object]) -> list[int]:
    count = Counter(chain[0][0] for chain in chains)
    return [count[node] for node in nodes]


def check_chains(chains: Sequence[Placed], free: Mapping[NodeId, list[TargetId]], r: int) -> None:
    placed = [target for chain in chains for _, target in chain]
    used = set(placed)
    assert len(used) == len(placed)
    for chain in chains:
        assert len(chain) == len({node for node, _ in chain}) == r
        assert all(target in free[node] for node, target in chain)
    left = sum(1 for node, owned in free.items() if any(t not in used for t in owned))
    assert left < r, "no further chain could be made"


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5])
def test_whole_blocks_spread_within_two_of_even(replicas: int) -> None:
    for count in [*range(max(2, replicas), 33), 50, 101]:
        for blocks in (1, 2, 3):
            free = targets([blocks * replicas] * count)
            chains = place(free, replicas)
            check_chains(chains, free, replicas)
            assert len(chains) == blocks * count
            assert set(heads(chains, free)) == {blocks}
            even = blocks * replicas * (replicas - 1) / (count - 1)
            met = meetings(chains)
            assert max(met.values(), default=0) <= max(2, 2 * even)
            least = min(met[a, b] for a in free for b in free if a != b)
            assert least >= int(even / 2)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_what_fills_no_block_spreads_within_one_chain_more(replicas: int) -> None:
    for count in [*range(replicas, 24), 40]:
        for owned in (1, 2, 4, 7, 11):
            free = targets([owned] * count)
            chains = place(free, replicas)
            check_chains(chains, free, replicas)
            assert len(chains) == owned * count // replicas
            assert max(heads(chains, free)) - min(heads(chains, free)) <= 2
            even = owned * (replicas - 1) / (count - 1)
            assert max(meetings(chains).values(), default=0) <= 2 * even + 2


def test_three_nodes_take_turns_at_the_head() -> None:
    one, two, three = NodeId(1), NodeId(2), NodeId(3)
    chains = place(targets([3, 3, 3]), 3)
    assert [[node for node, _ in chain] for chain in chains] == [
        [one, two, three],
        [two, three, one],
        [three, one, two],
    ]
    assert chains[0] == ((one, TargetId(65536)), (two, TargetId(131072)), (three, TargetId(196608)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_nodes_of_any_size(counts: list[int], replicas: int) -> None:
    free = targets(counts)
    if sum(1 for c in counts if c) < replicas:
        with pytest.raises(FsError) as raised:
            place(free, replicas)
        assert raised.value.code is Code.INVALID
        return
    check_chains(place(free, replicas), free, replicas)
    assert place(free, replicas) == place(dict(reversed(free.items())), replicas)


@pytest.mark.parametrize("owned", [12, 16])
def test_a_thousand_nodes(owned: int) -> None:
    free = targets([owned] * 1000)
    chains = place(free, 3)
    check_chains(chains, free, 3)
    assert len(chains) == owned * 1000 // 3
    partners = Counter(a for a, _ in meetings(chains))
    assert min(partners.values()) >= 2 * owned - 4, "nearly every meeting is with another node"


@pytest.mark.parametrize("replicas", [0, -1, 6, 1 << 70])
def test_absurd_replicas(replicas: int) -> None:
    with pytest.raises(FsError) as raised:
        place(targets([3] * 9), replicas)
    assert raised.value.code is Code.INVALID
