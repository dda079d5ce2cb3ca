"""The manager over a store: publishing, leases, take-over, and a store that fails."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from chain_replication.manager.loop import Manager
from chain_replication.manager.state import FAILURE_SECONDS, Beat, Report
from chain_replication.manager.store import Store
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import Generation, NodeId, TargetId
from fireflyfs.kv.memory import Faults, MemoryEngine
from fireflyfs.limits import LEASE_SECONDS
from fireflyfs.routing import LocalState, PublicState, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fireflyfs.kv.base import Engine

NODES = (NodeId(1), NodeId(2), NodeId(3))


async def office(engine: Engine, term: bytes = b"first000") -> Manager:
    return await Manager.open(Store(engine, "c", term))


def beat(manager: Manager, node: NodeId, generation: int = 7) -> Beat:
    record = manager.state.table.nodes[node]
    version = next((c.chain.version for c in manager.state.table.chains.values()), 0)
    reports = {TargetId(node << 16): Report(LocalState.ONLINE, version)}
    return Beat(node, Generation(generation), Role.STORAGE, record.node.name, (), reports)


async def make_cluster(manager: Manager) -> None:
    for node in NODES:
        await manager.register(Role.STORAGE, f"s{node}", 1)
        await manager.heartbeat(beat(manager, node))
    await manager.create_chains(3)


async def keep_beating(manager: Manager, nodes: Iterable[NodeId]) -> None:
    while True:
        for node in nodes:
            await manager.heartbeat(beat(manager, node))
        await trio.sleep(1)


def states(manager: Manager) -> list[PublicState]:
    return [t.state for c in manager.routing.chains.values() for t in c.targets]


async def test_what_is_decided_is_stored_and_published(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = MemoryEngine()
    manager = await office(engine)
    await make_cluster(manager)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        nursery.start_soon(keep_beating, manager, NODES[:2])
        version = manager.routing.version
        started = trio.current_time()
        routing = await manager.routing_after(version, 30)
        assert routing is not None
        assert FAILURE_SECONDS <= trio.current_time() - started <= FAILURE_SECONDS + 0.5
        assert not routing.nodes[NODES[2]].alive
        assert states(manager).count(PublicState.SERVING) == 2
        nursery.cancel_scope.cancel()
    later = await office(engine, b"second00")
    assert later.routing == manager.routing


async def test_a_long_poll_ends_without_news(autojump_clock: trio.testing.MockClock) -> None:
    manager = await office(MemoryEngine())
    assert await manager.routing_after(0, 0) is None
    assert await manager.routing_after(1 << 62, float("inf")) is None
    await manager.register(Role.META, "m", 0)
    assert await manager.routing_after(0, 0) is manager.routing


async def test_a_newer_manager_takes_the_office(autojump_clock: trio.testing.MockClock) -> None:
    engine = MemoryEngine()
    first = await office(engine)
    await make_cluster(first)
    second = await office(engine, b"second00")
    with pytest.raises(FsError) as raised:
        await first.register(Role.META, "m", 0)
    assert raised.value.code is Code.NOT_SERVING
    with pytest.raises(FsError) as raised:
        await first.run()
    assert raised.value.code is Code.NOT_SERVING
    assert (await second.register(Role.META, "m", 0)).node.node_id == 4


async def test_leases_end_before_a_newer_manager_counts_anyone_as_dead(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """``first`` is paused: it has not seen that ``second`` took over, and still gets heartbeats."""
    engine = MemoryEngine()
    first = await office(engine)
    await make_cluster(first)
    await office(engine, b"second00")
    dead_at = trio.current_time() + FAILURE_SECONDS
    for _ in range(40):
        lease = await first.heartbeat(beat(first, NODES[0]))
        assert lease <= LEASE_SECONDS
        assert lease == 0 or trio.current_time() + lease <= dead_at
        await trio.sleep(0.1)
    assert lease == 0


async def test_the_lease_of_a_manager_in_office(autojump_clock: trio.testing.MockClock) -> None:
    manager = await office(MemoryEngine())
    await make_cluster(manager)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        for _ in range(20):
            assert await manager.heartbeat(beat(manager, NODES[0])) == LEASE_SECONDS
            await trio.sleep(0.9)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(20))
async def test_unknown_results_and_conflicts_of_the_store(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Whatever the store says, what is published is what is stored, and everything gets done."""
    faults = Faults(conflict=0.3, unknown=0.3)
    engine = MemoryEngine(random.Random(seed), faults)
    manager = await office(engine)
    await make_cluster(manager)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        nursery.start_soon(keep_beating, manager, NODES[:2])
        await trio.sleep(6)
        assert states(manager).count(PublicState.SERVING) == 2
        nursery.cancel_scope.cancel()
    stored = await Store(engine, "c", b"first000").load()
    assert stored == manager.state.table


async def test_a_cancelled_request_leaves_no_doubt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = MemoryEngine()
    manager = await office(engine)
    for n in range(30):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.register, Role.META, f"m{n}", 0)
                for _ in range(n % 10):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    await manager.register(Role.META, "last", 0)
    assert await Store(engine, "c", b"first000").load() == manager.state.table


async def test_a_store_of_another_cluster_is_refused() -> None:
    engine = MemoryEngine()
    await office(engine)
    with pytest.raises(FsError, match="belongs to cluster 'c'") as raised:
        await Manager.open(Store(engine, "other", b"second00"))
    assert raised.value.code is Code.CONFIG
