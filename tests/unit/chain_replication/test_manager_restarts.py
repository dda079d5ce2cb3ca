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


def test_one_that_restarted_and_died_at_once_is_not_chosen_over_those_that_live() -> None:
    world = make_running()
    world.now += 0.1
    world.start(C)  # all were killed; this one comes back first, and is gone for good
    world.beat(C)
    world.now += 0.5
    for node in (A, B):
        world.start(node)
        world.beat(node)
    world.tick(5, A, B)
    assert world.states()[C] is F
    assert S in (world.states()[A], world.states()[B])
