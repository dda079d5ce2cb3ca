"""A restart that the manager learns of while it knows little counts all the same."""

from __future__ import annotations

from tests.unit.chain_replication.test_manager_state import A, B, C, F, L, S, W, Y, make_running


def test_a_restart_counts_though_the_chain_cannot_be_decided_yet() -> None:
    world = make_running()
    world.tick(5, A)
    assert world.states() == {A: S, B: F, C: F}
    version = world.version()
    world.restart_manager()  # it has heard nobody: what B and C are like is not known
    world.start(A)
    world.beat(A)
    assert world.version() == version
    assert world.stored.nodes[A].node.generation != world.generations[A]
    world.tick(4, A)
    assert world.stored.nodes[A].node.generation == world.generations[A]
    assert world.version() > version


def test_a_restart_beside_another_that_serves_is_not_taken_for_having_gone_on() -> None:
    world = make_running()
    world.tick(5, A, B)
    assert world.states() == {A: S, B: S, C: F}
    world.restart_manager()
    world.start(A)
    world.beat(A)
    world.beat(B)
    world.tick(4, A, B)
    assert world.states()[A] in (Y, W, L)
    assert world.states()[B] is S
