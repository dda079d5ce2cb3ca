"""What a replica knows of updates from before it fell out of its chain is not to be believed."""

from __future__ import annotations

from chain_replication import actions as act
from fireflyfs.ids import TargetId
from fireflyfs.routing import PublicState
from fireflyfs.updates import UpdateKind
from tests.unit.chain_replication.world import World

SERVING, SYNCING, OFFLINE = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE
CHUNK = b"chunk"


def _only_the_tail_takes(world: World, value: int, kind: UpdateKind = UpdateKind.WRITE) -> None:
    """An update reaches the tail; the head dies before it has stored it, and serves again alone."""
    world.update(1, CHUNK, value, kind=kind)
    world.todo = [todo for todo in world.todo if isinstance(todo[2], act.Forward)]
    world.run()
    world.nodes[TargetId(1)].restart()
    world.chain(SERVING, OFFLINE)
    world.run()


def _sync(world: World) -> None:
    world.chain(SERVING, SYNCING)
    world.resync()
    world.run()
    world.chain(SERVING, SERVING)
    world.run()


def test_a_removal_by_recovery_takes_the_records_of_the_chunk_with_it() -> None:
    world = World(size=2)
    _only_the_tail_takes(world, 5)
    assert world.content(2, CHUNK) == (5,)
    _sync(world)
    assert world.content(2, CHUNK) == ()
    world.chain(SERVING, OFFLINE, order=(2, 1))
    world.update(2, CHUNK, 5)  # the client never had an answer
    world.run()
    assert world.content(2, CHUNK) == (5,)


def test_a_removal_that_was_lost_does_not_keep_recovery_from_restoring_the_chunk() -> None:
    world = World(size=2)
    world.update(1, CHUNK, 4)
    world.run()
    _only_the_tail_takes(world, 5, UpdateKind.REMOVE)
    assert (world.content(1, CHUNK), world.content(2, CHUNK)) == ((4,), ())
    _sync(world)
    world.check_equal(1, 2)
    assert world.content(2, CHUNK) == (4,)


def test_a_late_repeat_of_a_removal_that_found_nothing_removes_nothing() -> None:
    world = World(size=2)
    world.update(1, CHUNK, 1, kind=UpdateKind.REMOVE)
    world.run()
    world.update(1, CHUNK, 2, client=8)
    world.run()
    world.update(1, CHUNK, 1, kind=UpdateKind.REMOVE)
    world.run()
    assert world.content(1, CHUNK) == world.content(2, CHUNK) == (2,)
