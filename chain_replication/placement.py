"""Which targets make a chain: a balanced design, constructed, not searched. Pure.

What is wanted: every chain on different nodes; every node equally often at every place of a chain
(so at its head, where writes enter); and any two nodes together in about equally many chains, so
that what a lost node held is read from, and written to, all other nodes and not a few.

Nodes numbered 0 to n - 1 on a ring, a *base block* of ``replicas`` different steps (0, a, b, ...)
put down at each of the n places makes n chains, in which every node takes every place exactly
once. Two nodes at distance d meet once for each pair of the block that is d apart. So the blocks
are chosen such that all distances occur about equally often: step by step, always the one whose
distances to the steps before were used least so far. (With perfect luck that is a cyclic difference
family; within a factor of two of even is what the tests hold it to.)

What does not fill a whole block (a number of targets that ``replicas`` does not divide, nodes of
different sizes) is laid chain by chain, from the nodes that met least among those with the most
free targets; that spreads to within one chain of the same factor.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MAX_REPLICAS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fireflyfs.ids import NodeId, TargetId


def place(
    free: Mapping[NodeId, Sequence[TargetId]], replicas: int
) -> list[tuple[tuple[NodeId, TargetId], ...]]:
    """Chains, each of ``replicas`` (node, target) in chain order, over the free targets of nodes.

    As many as can be made; what is left over is fewer than ``replicas`` nodes' targets. The same
    input gives the same chains.

    Errors:
        FsError: ``INVALID`` for a number of replicas that no chain can have, or that the nodes
        with a free target do not suffice for.
    """
    pools = {node: sorted(targets, reverse=True) for node, targets in sorted(free.items())}
    nodes = [node for node, targets in pools.items() if targets]
    if not 1 <= replicas <= MAX_REPLICAS:
        raise FsError(Code.INVALID, f"{replicas} replicas: a chain has 1 to {MAX_REPLICAS}")
    if len(nodes) < replicas:
        raise FsError(
            Code.INVALID,
            f"{replicas} replicas need as many nodes with free targets, there are {len(nodes)}",
        )
    blocks = min(len(pools[node]) for node in nodes) // replicas
    chains = _cyclic(nodes, blocks, replicas)
    left = {node: len(pools[node]) - blocks * replicas for node in nodes}
    chains += _remainder(left, replicas, chains)
    return [tuple((node, pools[node].pop()) for node in chain) for chain in chains]


def _cyclic(nodes: Sequence[NodeId], blocks: int, replicas: int) -> list[list[NodeId]]:
    count = len(nodes)
    used = [0] * count
    chains = []
    for _ in range(blocks):
        steps = _base_block(count, replicas, used)
        chains += [[nodes[(start + s) % count] for s in steps] for start in range(count)]
    return chains


def _base_block(count: int, replicas: int, used: list[int]) -> list[int]:
    """Steps whose mutual distances were ``used`` least; counts them in."""
    steps = [0]
    for _ in range(replicas - 1):
        candidates = (s for s in range(1, count) if s not in steps)
        best = min(candidates, key=lambda s: _distance_cost(s, steps, count, used))
        for step in steps:
            used[(best - step) % count] += 1
            used[(step - best) % count] += 1
        steps.append(best)
    return steps


def _distance_cost(step: int, steps: Sequence[int], count: int, used: Sequence[int]) -> int:
    """How uneven the distances get: the growth of the sum of squares, own repetitions included."""
    distances: Counter[int] = Counter()
    for before in steps:
        distances[(step - before) % count] += 1
        distances[(before - step) % count] += 1
    return sum(n * (2 * used[d] + n) for d, n in distances.items())


def _remainder(
    left: dict[NodeId, int], replicas: int, chains: Sequence[Sequence[NodeId]]
) -> list[list[NodeId]]:
    met: dict[NodeId, Counter[NodeId]] = {node: Counter() for node in left}
    for chain in chains:
        _count_meetings(chain, met)
    heads: Counter[NodeId] = Counter()
    laid = []
    for to_lay in range(_most_chains(left, replicas), 0, -1):
        chain = _next_chain(left, replicas, to_lay, met)
        chain.sort(key=lambda node: heads[node])
        heads[chain[0]] += 1
        _count_meetings(chain, met)
        laid.append(chain)
    return laid


def _most_chains(left: Mapping[NodeId, int], replicas: int) -> int:
    """The most chains: each takes a node once, so a node is of use for at most all of them."""
    count = sum(left.values()) // replicas
    while sum(min(free, count) for free in left.values()) < count * replicas:
        count -= 1
    return count


def _next_chain(
    left: dict[NodeId, int],
    replicas: int,
    to_lay: int,
    met: Mapping[NodeId, Counter[NodeId]],
) -> list[NodeId]:
    """The nodes that every chain still needs, then those that met the chosen ones least.

    Nodes two targets behind the fullest are passed over, or the last chains would have no choice.
    """
    chain: list[NodeId] = []
    enough = max(1, max(left.values()) - 1)
    cost = {node: 0 for node, free in left.items() if free >= enough}
    for _ in range(replicas):
        if not cost:
            cost = {node: 0 for node, free in left.items() if free and node not in chain}
        node = min(cost, key=lambda n: (left[n] < to_lay, cost[n], -left[n]))
        chain.append(node)
        del cost[node]
        for other, times in met[node].items():
            if other in cost:
                cost[other] += 2 * times
    for node in chain:
        left[node] -= 1
    return chain


def _count_meetings(chain: Sequence[NodeId], met: Mapping[NodeId, Counter[NodeId]]) -> None:
    for node in chain:
        met[node].update(other for other in chain if other != node)
