"""The manager's judgement with a clock of its own: who is dead, who restarted, who serves."""

from __future__ import annotations

import itertools

import pytest

from chain_replication.manager import growth
from chain_replication.manager.records import Change, Table
from chain_replication.manager.state import FAILURE_SECONDS, Beat, Report, State
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import Generation, NodeId, TargetId
from fireflyfs.routing import Chain, LocalState, PublicState, Role

S, L, Y, W, F = PublicState
UP, ON, OFF = LocalState

A, B, C = NodeId(1), NodeId(2), NodeId(3)
NODES = (A, B, C)


class World:
    """A manager's state, a store that never fails, and storage nodes that follow the contract."""

    def __init__(self, nodes: int = 3, targets: int = 1) -> None:
        self.now = 100.0
        self.stored = Table("c")
        self.state = State(self.stored, self.now)
        self.generations: dict[NodeId, int] = {}
        self.up: dict[NodeId, dict[TargetId, int]] = {}
        """Per node: its targets that are up to date, with the chain version as of which."""
        for n in range(nodes):
            self.apply(growth.register(self.stored, Role.STORAGE, f"s{n + 1}", targets)[1])

    def apply(self, change: Change) -> Change:
        if change:
            self.stored = self.stored.applied(change)
            self.state.adopt(self.stored, self.now)
        return change

    def create_chains(self, replicas: int = 3) -> None:
        self.apply(growth.create_chains(self.stored, replicas))

    def start(self, node: NodeId) -> None:
        self.generations[node] = self.generations.get(node, node * 100) + 1
        self.up[node] = {}

    def beat(self, node: NodeId, *, disks: LocalState = ON) -> None:
        """One heartbeat, after applying the routing as it is now; and what follows from it."""
        self.follow(node)
        self.state.heartbeat(self.message(node, disks), self.now)
        self.settle()

    def message(self, node: NodeId, disks: LocalState = ON) -> Beat:
        record = self.stored.nodes[node]
        reports = {}
        for target in record.targets:
            chain = self.chain_of(target)
            local = UP if target in self.up[node] else ON
            reports[target] = Report(
                local if disks is ON else OFF, chain.version if chain is not None else 0
            )
        generation = Generation(self.generations[node])
        return Beat(node, generation, Role.STORAGE, record.node.name, ("tcp://h:1",), reports)

    def chain_of(self, target: TargetId) -> Chain | None:
        chains = (record.chain for record in self.stored.chains.values())
        return next((c for c in chains if c.find(target)), None)

    def follow(self, node: NodeId) -> None:
        """What the storage node does about its targets' local states when routing changes."""
        for record in self.stored.chains.values():
            for target in record.chain.targets:
                if target.node_id != node:
                    continue
                mine = self.stored.nodes[node].node.generation == self.generations[node]
                synced = self.up[node].get(target.target_id) == record.chain.version
                if target.state is S and mine:
                    self.up[node][target.target_id] = record.chain.version
                elif target.state is not S and not (target.state is Y and synced):
                    self.up[node].pop(target.target_id, None)

    def sync_done(self, node: NodeId) -> None:
        self.follow(node)
        for record in self.stored.chains.values():
            for target in record.chain.targets:
                if target.node_id == node and target.state is Y:
                    self.up[node][target.target_id] = record.chain.version

    def settle(self) -> None:
        for _ in range(5):
            if not self.apply(self.state.evaluate(self.now)):
                return
        raise AssertionError("no fixed point")

    def tick(self, seconds: float, *alive: NodeId) -> None:
        """Time passes, in quarters of a second; ``alive`` nodes heartbeat every second."""
        for n in range(int(seconds * 4)):
            self.now += 0.25
            if n % 4 == 3:
                for node in alive:
                    self.beat(node)
            self.state.notice_silence(self.now)
            self.settle()

    def restart_manager(self) -> None:
        self.state = State(self.stored, self.now)

    def states(self, chain: int = 1) -> dict[NodeId, PublicState]:
        record = next(r for i, r in self.stored.chains.items() if i == chain)
        return {t.node_id: t.state for t in record.chain.targets}

    def version(self) -> int:
        return next(iter(self.stored.chains.values())).chain.version


def make_running(nodes: int = 3, targets: int = 1) -> World:
    world = World(nodes, targets)
    for node in world.stored.nodes:
        world.start(node)
        world.beat(node)
    world.create_chains()
    for node in world.stored.nodes:
        world.beat(node)
    assert all(set(world.states(c).values()) == {S} for c in world.stored.chains)
    assert world.version() == 1
    return world


def serving(world: World) -> set[NodeId]:
    return {n for n, s in world.states().items() if s is S}


def recover(world: World, *alive: NodeId) -> None:
    """Nodes that sync finish; one heartbeat later they serve."""
    for _ in range(4):
        world.tick(1, *alive)
        for node in alive:
            world.sync_done(node)
    world.tick(1, *alive)


def test_a_silent_node_is_taken_out_after_three_seconds_and_not_before() -> None:
    world = make_running()
    world.tick(2.75, B, C)
    assert serving(world) == {A, B, C}
    world.tick(0.25, B, C)
    assert world.states() == {B: S, C: S, A: F}
    assert not world.stored.nodes[A].node.alive
    assert (
        "lost while others serve"
        in world.stored.chains[next(iter(world.stored.chains))].last_change
    )
    recover(world, A, B, C)
    assert world.states() == {B: S, C: S, A: S}


def test_a_restart_is_judged_once_its_peers_were_heard_after_it() -> None:
    world = make_running()
    world.now += 0.1
    world.start(A)
    world.beat(A)
    assert world.stored.nodes[A].node.generation == 101, "not judged yet"
    world.beat(B)
    assert serving(world) == {A, B, C}
    world.beat(C)
    assert world.states() == {B: S, C: S, A: Y}
    assert world.stored.nodes[A].node.generation == 102
    assert world.stored.nodes[A].former == (101,)
    recover(world, *NODES)
    assert world.states() == {B: S, C: S, A: S}


def test_restart_within_the_bound_counts_once() -> None:
    world = make_running()
    world.start(A)
    world.tick(1, A, B, C)
    version = world.version()
    assert world.states()[A] is Y
    world.tick(3, A, B, C)
    assert world.version() == version


def test_a_manager_restart_changes_nothing() -> None:
    world = make_running()
    before = world.stored
    world.restart_manager()
    world.tick(2, A, B, C)
    assert world.stored == before


def test_after_a_manager_restart_nobody_is_dead_at_once() -> None:
    world = make_running()
    world.now += 3600
    world.restart_manager()
    world.tick(2.75)
    assert serving(world) == {A, B, C}
    world.tick(0.25)
    assert world.states() == {A: L, B: L, C: L}


def test_after_a_manager_restart_a_chain_waits_for_all_its_members() -> None:
    world = make_running()
    world.restart_manager()
    world.start(A)
    world.tick(2, A, B)
    assert serving(world) == {A, B, C}
    world.beat(C)
    world.tick(1, A, B, C)
    assert world.states() == {B: S, C: S, A: Y}


@pytest.mark.parametrize("order", list(itertools.permutations(NODES)))
@pytest.mark.parametrize("manager_too", [False, True])
@pytest.mark.parametrize("returning", [1, 2, 3])
def test_all_killed_at_once_return_in_any_order(
    order: tuple[NodeId, ...], manager_too: bool, returning: int
) -> None:
    """Any one that returns is enough to serve again: each holds every acknowledged write."""
    world = make_running()
    if manager_too:
        world.restart_manager()
    alive: list[NodeId] = []
    for node in order[:returning]:
        world.start(node)
        world.tick(0.25)
        world.beat(node)
        alive.append(node)
    world.tick(5, *alive)
    assert len(serving(world)) == 1
    assert serving(world) <= set(alive)
    recover(world, *alive)
    assert serving(world) == set(alive)


@pytest.mark.parametrize("order", list(itertools.permutations(NODES)))
def test_all_dead_for_long_the_first_that_returns_serves(order: tuple[NodeId, ...]) -> None:
    world = make_running()
    world.tick(10)
    assert world.states() == {A: L, B: L, C: L}
    for n, node in enumerate(order, 1):
        world.start(node)
        world.tick(1, *order[:n])
        assert serving(world) == {order[0]}
    recover(world, *order)
    assert serving(world) == set(NODES)


def test_lost_one_by_one_only_the_last_may_revive_the_chain() -> None:
    world = make_running()
    world.tick(4, B, C)
    world.tick(4, C)
    world.tick(4)
    assert world.states() == {C: L, A: F, B: F}
    for node in (A, B):
        world.start(node)
    world.tick(5, A, B)
    assert world.states() == {C: L, A: W, B: W}
    world.start(C)
    world.tick(1, *NODES)
    assert serving(world) == {C}


def test_a_node_that_was_away_may_not_answer_before_it_has_caught_up_with_routing() -> None:
    world = make_running()
    stale = world.message(A)
    world.tick(4, B, C)
    world.state.heartbeat(stale, world.now)
    world.settle()
    assert world.states()[A] is Y
    assert not world.state.may_renew_lease(A)
    world.beat(A)
    assert world.state.may_renew_lease(A)
    assert world.state.may_renew_lease(B)


def test_synced_counts_only_as_of_the_current_chain_version() -> None:
    world = make_running()
    world.tick(4, B, C)
    world.beat(A)
    world.sync_done(A)
    done = world.message(A)
    world.tick(4, B)  # C is lost: the chain has a new version, A one to start over with
    assert world.states()[C] is F
    world.state.heartbeat(done, world.now)
    world.settle()
    assert world.states()[A] is not S


def test_flapping_ends_well() -> None:
    world = make_running()
    for _ in range(20):
        world.start(A)
        world.tick(0.5)
        world.beat(A)
        world.beat(B)
        world.beat(C)
    assert {B, C} <= serving(world)
    recover(world, *NODES)
    assert serving(world) == set(NODES)
    assert len(world.stored.nodes[A].former) <= 8


def test_a_crash_loop_does_not_hold_up_the_judgement() -> None:
    world = make_running()
    for step in range(16):  # A draws a new generation four times a second
        world.start(A)
        world.now += 0.25
        world.beat(A)
        if step % 4 == 1:
            world.beat(B)
        if step % 4 == 3:
            world.beat(C)
    assert {B, C} <= serving(world)
    assert world.states()[A] is not S


def test_a_failed_disk_is_taken_out_at_once() -> None:
    world = make_running()
    world.beat(A, disks=OFF)
    assert world.states()[A] is F
    assert world.stored.nodes[A].node.alive


def test_a_target_that_is_not_reported_counts_as_lost() -> None:
    world = make_running()
    beat = world.message(A)
    empty = Beat(A, beat.generation, beat.role, beat.name, beat.addresses, {})
    world.state.heartbeat(empty, world.now)
    world.settle()
    assert world.states()[A] is F


def test_of_two_processes_with_one_name_the_newer_wins() -> None:
    world = make_running()
    old = world.message(A)
    world.start(A)
    world.tick(1, *NODES)
    with pytest.raises(FsError) as raised:
        world.state.heartbeat(old, world.now)
    assert raised.value.code is Code.SUPERSEDED
    world.restart_manager()
    with pytest.raises(FsError, match="newer process"):
        world.state.heartbeat(old, world.now)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"node_id": NodeId(77)}, Code.NOT_FOUND),
        ({"name": "s2"}, Code.INVALID),
        ({"role": Role.META}, Code.INVALID),
        ({"targets": {TargetId(B << 16): Report(ON)}}, Code.INVALID),
    ],
)
def test_heartbeats_of_strangers(change: dict[str, object], code: Code) -> None:
    world = make_running()
    before = world.stored
    good = world.message(A)
    fields = {name: getattr(good, name) for name in Beat.__slots__}
    with pytest.raises(FsError) as raised:
        world.state.heartbeat(Beat(**{**fields, **change}), world.now)
    assert raised.value.code is code
    world.settle()
    assert world.stored == before


def test_heartbeats_without_news_cost_no_change() -> None:
    world = make_running(nodes=6, targets=4)
    before = world.stored
    world.tick(10, *world.stored.nodes)
    assert world.stored is before


def test_many_chains_survive_a_lost_node() -> None:
    world = make_running(nodes=5, targets=6)
    world.tick(FAILURE_SECONDS + 1, *(n for n in world.stored.nodes if n != A))
    for chain in world.stored.chains:
        states = world.states(chain)
        assert states.get(A, F) is F
        assert list(states.values()).count(S) >= 2
    recover(world, *world.stored.nodes)
    assert all(set(world.states(c).values()) == {S} for c in world.stored.chains)


def test_register_is_idempotent_and_only_grows() -> None:
    table = Table("c")
    record, change = growth.register(table, Role.STORAGE, "s1", 2)
    table = table.applied(change)
    assert record.targets == (65536, 65537)
    for asked, given in ((2, 2), (1, 2), (4, 4)):
        record, change = growth.register(table, Role.STORAGE, "s1", asked)
        table = table.applied(change) if change else table
        assert len(record.targets) == given
    other, _ = growth.register(table, Role.META, "s1", 0)
    assert other.node.node_id == 2


@pytest.mark.parametrize(
    ("role", "name", "targets"),
    [
        (Role.STORAGE, "", 1),
        (Role.STORAGE, "x" * 256, 1),
        (Role.STORAGE, "a\nb", 1),
        (Role.STORAGE, "s1", 1 << 31),
        (Role.META, "m", 1),
    ],
)
def test_absurd_registrations(role: Role, name: str, targets: int) -> None:
    with pytest.raises(FsError) as raised:
        growth.register(Table("c"), role, name, targets)
    assert raised.value.code is Code.INVALID


def test_new_targets_get_new_chains() -> None:
    world = make_running()
    assert not growth.create_chains(world.stored, 3)
    for name in ("s1", "s2", "s3"):
        world.apply(growth.register(world.stored, Role.STORAGE, name, 2)[1])
    world.create_chains()
    assert sorted(world.stored.chains) == [1, 2]
