"""The protocol over three replicas, by hand-made histories and by seeded ones."""

from __future__ import annotations

import pytest

from chain_replication import actions as act
from chain_replication import events as ev
from fireflyfs.errors import Code
from fireflyfs.ids import TargetId
from fireflyfs.routing import LocalState, PublicState
from fireflyfs.updates import UpdateKind
from tests.unit.chain_replication.world import World

A, B = b"a" * 16, b"b" * 16
SERVING, SYNCING, OFFLINE, LASTSRV = (
    PublicState.SERVING,
    PublicState.SYNCING,
    PublicState.OFFLINE,
    PublicState.LASTSRV,
)


def refusal(world: World, request: int) -> Code:
    answer = world.answers[request]
    assert isinstance(answer, act.Refuse), answer
    return answer.code


def version(world: World, request: int) -> int:
    answer = world.answers[request]
    assert isinstance(answer, act.Reply), answer
    return answer.version


def test_an_acknowledged_write_is_on_all_serving_replicas() -> None:
    world = World()
    request = world.update(1, A, 1)
    assert request not in world.answers
    world.run()
    assert version(world, request) == 1
    assert all(world.content(t, A) == (1,) for t in (1, 2, 3))
    world.check_equal(1, 2, 3)


def test_nothing_is_left_of_an_operation() -> None:
    world = World()
    for value in range(1, 6):
        world.update(1, A, value)
    world.run()
    assert world.content(3, A) == (1, 2, 3, 4, 5)
    for node in world.nodes.values():
        assert node.replica.in_flight == 0
        assert node.payloads == {}


def test_a_single_replica_is_head_and_tail() -> None:
    world = World(size=1)
    request = world.update(1, A, 1)
    world.run()
    assert version(world, request) == 1


def test_a_retry_joins_the_update_in_flight_or_gets_its_result() -> None:
    world = World()
    first = world.update(1, A, 1)
    second = world.update(1, A, 1)
    world.run()
    third = world.update(1, A, 1)
    world.run()
    assert [version(world, r) for r in (first, second, third)] == [1, 1, 1]
    assert world.content(3, A) == (1,)


def test_an_overtaken_update_is_not_applied() -> None:
    world = World()
    world.update(1, A, 5)
    world.run()
    late = world.update(1, A, 4)
    world.run()
    assert refusal(world, late) is Code.SUPERSEDED
    assert world.content(3, A) == (5,)


def test_exactly_once_survives_the_head() -> None:
    world = World()
    world.update(1, A, 1)
    world.run()
    world.nodes[TargetId(1)].alive = False
    world.chain(SERVING, SERVING, OFFLINE, order=(2, 3, 1))
    retry = world.update(2, A, 1)
    world.run()
    assert version(world, retry) == 1
    assert world.content(3, A) == (1,)


def test_others_than_the_head_and_other_versions_are_refused() -> None:
    world = World()
    assert refusal(world, world.update(2, A, 1)) is Code.ROUTING_STALE
    world.version += 1
    assert refusal(world, world.update(1, A, 1)) is Code.ROUTING_STALE


def test_a_chain_that_changes_forwards_again() -> None:
    world = World()
    world.nodes[TargetId(2)].alive = False
    request = world.update(1, A, 1)
    world.run()
    assert request not in world.answers
    world.chain(SERVING, SERVING, OFFLINE, order=(1, 3, 2))
    world.run()
    assert version(world, request) == 1
    assert world.content(3, A) == (1,)


def test_the_last_one_left_commits_what_is_in_flight() -> None:
    world = World()
    world.nodes[TargetId(2)].alive = world.nodes[TargetId(3)].alive = False
    request = world.update(1, A, 1)
    world.run()
    world.chain(SERVING, OFFLINE, OFFLINE)
    world.run()
    assert version(world, request) == 1


def test_a_dirty_read_is_parked_and_answered_when_the_update_settles() -> None:
    world = World()
    world.update(1, A, 1)
    world.run()
    world.update(1, A, 2)
    head = world.nodes[TargetId(1)].replica
    assert not head.readable(A)
    read = world.read(1, A)
    assert read not in world.reads
    world.run()
    assert world.reads[read] == (1, 2)
    assert head.readable(A)


def test_a_parked_read_can_expire() -> None:
    world = World()
    world.nodes[TargetId(2)].alive = False
    world.update(1, A, 1)
    read = world.read(1, A)
    world.feed(world.nodes[TargetId(1)], ev.ReadExpired(read))
    assert refusal(world, read) is Code.CHUNK_DIRTY


def test_a_listing_waits_for_what_was_answered_to_be_committed() -> None:
    world = World()
    request = world.update(1, A, 1)
    while request not in world.answers:
        world.one()
    assert world.content(1, A) == ()
    listing = world.draw()
    world.feed(world.nodes[TargetId(1)], ev.Settle(listing))
    assert listing not in world.answers
    world.run()
    assert version(world, listing) == 0


def test_the_tail_answers_reads_at_any_time() -> None:
    world = World()
    world.update(1, A, 1)
    assert world.nodes[TargetId(3)].replica.readable(A)


def test_a_removed_chunk_does_not_come_back() -> None:
    world = World()
    world.update(1, A, 1)
    world.run()
    world.update(1, A, 2, kind=UpdateKind.REMOVE)
    world.run()
    late = world.update(1, A, 1)
    again = world.update(1, A, 2, kind=UpdateKind.REMOVE)
    world.run()
    assert refusal(world, late) is Code.SUPERSEDED
    assert version(world, again) == 2
    assert world.content(1, A) == ()
    fresh = world.update(1, A, 3)
    world.run()
    assert version(world, fresh) == 3
    world.check_equal(1, 2, 3)


def test_removing_what_is_not_there_is_done() -> None:
    world = World()
    request = world.update(1, A, 1, kind=UpdateKind.REMOVE)
    assert version(world, request) == 0


def test_a_full_tail_refuses_cleanly() -> None:
    world = World()
    world.nodes[TargetId(3)].store.full = True
    request = world.update(1, A, 1)
    world.run()
    assert refusal(world, request) is Code.NO_SPACE
    assert all(node.store.chunks == {} for node in world.nodes.values())
    world.nodes[TargetId(3)].store.full = False
    request = world.update(1, A, 2)
    world.run()
    assert version(world, request) == 1


@pytest.mark.parametrize("target", [1, 2])
def test_a_full_replica_refuses_before_its_successor_has_the_update(target: int) -> None:
    world = World()
    done = world.update(1, A, 1)
    world.run()
    assert version(world, done) == 1
    world.nodes[TargetId(target)].store.room = False
    request = world.update(1, A, 2, client=8)
    world.run()
    assert refusal(world, request) is Code.NO_SPACE
    assert world.local(target) is LocalState.UPTODATE
    again = world.update(1, A, 1)  # what was done needs no room
    world.run()
    assert version(world, again) == 1
    removal = world.update(1, A, 3, kind=UpdateKind.REMOVE)
    world.run()
    assert version(world, removal) == 2
    world.check_equal(1, 2, 3)


def test_a_full_replica_whose_successor_has_the_update_steps_down() -> None:
    world = World()
    world.nodes[TargetId(2)].store.full = True
    request = world.update(1, A, 1)
    for _ in range(40):
        if world.todo:
            world.one()
    assert world.local(2) is LocalState.OFFLINE
    world.todo.clear()
    world.chain(SERVING, SERVING, OFFLINE, order=(1, 3, 2))
    world.run()
    assert version(world, request) == 1
    world.now += 100
    world.feed(world.nodes[TargetId(2)], ev.Tick())
    assert world.local(2) is LocalState.ONLINE


def test_pending_versions_are_committed_after_a_restart_as_the_only_one() -> None:
    world = World()
    world.nodes[TargetId(2)].alive = False
    world.update(1, A, 1)
    world.run()
    head = world.nodes[TargetId(1)]
    assert head.store.chunks[A].meta.pending_version == 1
    head.restart()
    world.chain(LASTSRV, OFFLINE, OFFLINE)
    world.run()
    assert world.local(1) is LocalState.ONLINE
    world.chain(SERVING, OFFLINE, OFFLINE)
    world.run()
    assert world.local(1) is LocalState.UPTODATE
    assert world.content(1, A) == (1,)
    retry = world.update(1, A, 1)
    world.run()
    assert version(world, retry) == 1


def out_and_back(world: World) -> None:
    """Replica 3 misses a write, a removal and a new chunk, and is syncing again."""
    world.update(1, A, 1)
    world.update(1, B, 2)
    world.run()
    world.nodes[TargetId(3)].alive = False
    world.chain(SERVING, SERVING, OFFLINE)
    world.update(1, A, 3)
    world.update(1, B, 4, kind=UpdateKind.REMOVE)
    world.update(1, b"c" * 16, 5)
    world.run()
    world.nodes[TargetId(3)].restart()
    world.chain(SERVING, SERVING, SYNCING)


def test_resync_brings_a_replica_back() -> None:
    world = World()
    out_and_back(world)
    world.resync()
    assert world.local(3) is LocalState.UPTODATE
    world.run()
    world.check_equal(1, 2, 3)
    world.chain(SERVING, SERVING, SERVING)
    world.update(1, A, 6)
    world.run()
    assert world.content(3, A) == (1, 3, 6)


@pytest.mark.parametrize("kind", [UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE])
def test_every_kind_reaches_a_syncing_replica_that_has_nothing(kind: UpdateKind) -> None:
    world = World()
    out_and_back(world)
    request = world.update(1, A, 9, kind=kind)
    world.run()
    assert version(world, request) == 3
    assert world.content(3, A) == world.content(1, A)


def test_sync_done_is_refused_by_a_replica_that_has_restarted() -> None:
    world = World()
    out_and_back(world)
    world.resync()
    far = world.nodes[TargetId(3)]
    far.restart()
    chain = world.nodes[TargetId(1)].replica.standing.chain
    world.feed(far, ev.RoutingChanged(chain))
    request = world.draw()
    world.feed(far, ev.SyncDone(request, world.version))
    assert refusal(world, request) is Code.VERSION_GAP


def test_a_partial_write_is_never_taken_by_a_syncing_replica() -> None:
    world = World()
    out_and_back(world)
    update = ev.Update(A, UpdateKind.WRITE, 0, 1, (), 7, 9)
    world.nodes[TargetId(3)].payloads[999] = (9,)
    world.feed(world.nodes[TargetId(3)], ev.Forwarded(999, world.version, 2, 3, update, ()))
    assert refusal(world, 999) is Code.INVALID


def test_a_replica_that_misses_updates_steps_down() -> None:
    world = World()
    world.update(1, A, 1)
    world.run()
    update = ev.Update(A, UpdateKind.WRITE, 0, 1, (), 7, 9)
    world.nodes[TargetId(3)].payloads[999] = (9,)
    world.feed(world.nodes[TargetId(3)], ev.Forwarded(999, world.version, 2, 5, update, ()))
    assert refusal(world, 999) is Code.VERSION_GAP
    assert world.local(3) is LocalState.OFFLINE


def test_an_older_head_is_not_heard() -> None:
    world = World()
    world.chain(SERVING, SERVING, OFFLINE, order=(2, 3, 1))
    update = ev.Update(A, UpdateKind.WRITE, 0, 1, (), 7, 9)
    for source, chain_version in ((1, 1), (1, 2)):
        request = world.draw()
        world.nodes[TargetId(2)].payloads[request] = (9,)
        event = ev.Forwarded(request, chain_version, source, 1, update, ())
        world.feed(world.nodes[TargetId(2)], event)
        assert refusal(world, request) is Code.ROUTING_STALE


def test_a_failed_store_takes_the_target_out_for_good() -> None:
    world = World()
    node = world.nodes[TargetId(1)]
    world.feed(node, ev.TargetFailed("the disk is gone"))
    assert refusal(world, world.update(1, A, 1)) is Code.TARGET_FAILED
    world.chain(SERVING, SERVING, OFFLINE, order=(2, 3, 1))
    world.now += 100
    world.feed(node, ev.Tick())
    assert world.local(1) is LocalState.OFFLINE


def test_stopping_tells_whoever_waits() -> None:
    world = World()
    request = world.update(1, A, 1)
    world.feed(world.nodes[TargetId(1)], ev.Stopped())
    assert refusal(world, request) is Code.NOT_SERVING


@pytest.mark.parametrize("seed", range(150))
def test_seeded_histories(seed: int) -> None:
    """Writes with retries while replicas die, the network loses and repeats, and one syncs."""
    world = World(seed, faults=True)
    acknowledged: dict[bytes, list[int]] = {A: [], B: []}
    value = 0
    order: tuple[int, ...] = (1, 2, 3)
    for _ in range(4):
        for _ in range(5):
            value += 1
            write(world, order[0], world.random.choice((A, B)), value, acknowledged)
        victim = world.random.choice(order)
        order = lose_one(world, order, victim, value, acknowledged)
        bring_back(world, order, victim, value, acknowledged)
        value += 100
        for chunk, values in acknowledged.items():
            for target in order:
                have = world.content(target, chunk)
                assert [v for v in have if v in values] == values, (seed, target)
                assert len(set(have)) == len(have), (seed, "applied twice")
        world.check_equal(*order)


def write(
    world: World, head: int, chunk: bytes, value: int, acknowledged: dict[bytes, list[int]]
) -> None:
    """Retried as a client does until it is acknowledged."""
    for _ in range(50):
        request = world.update(head, chunk, value)
        if world.random.random() < 0.3:
            world.update(head, chunk, value)
        world.run()
        if isinstance(world.answers.get(request), act.Reply):
            acknowledged[chunk].append(value)
            return
    raise AssertionError("never acknowledged")


def lose_one(
    world: World,
    order: tuple[int, ...],
    victim: int,
    value: int,
    acknowledged: dict[bytes, list[int]],
) -> tuple[int, ...]:
    """A replica dies in the middle of a write, which its client then repeats at the new head."""
    value += 50
    world.update(order[0], A, value)
    for _ in range(world.random.randrange(6)):
        if world.todo:
            world.one()
    world.nodes[TargetId(victim)].alive = False
    left = tuple(t for t in order if t != victim)
    world.chain(SERVING, SERVING, OFFLINE, order=(*left, victim))
    world.run()
    write(world, left[0], A, value, acknowledged)
    return (*left, victim)


def bring_back(
    world: World,
    order: tuple[int, ...],
    victim: int,
    value: int,
    acknowledged: dict[bytes, list[int]],
) -> None:
    world.nodes[TargetId(victim)].restart()
    world.chain(SERVING, SERVING, SYNCING, order=order)
    racing = world.update(order[0], B, value + 60)
    world.resync()
    world.run()
    assert isinstance(world.answers[racing], act.Reply)
    acknowledged[B].append(value + 60)
    assert world.local(victim) is LocalState.UPTODATE
    world.chain(SERVING, SERVING, SERVING, order=order)
    world.run()
