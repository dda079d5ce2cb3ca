"""The membership table, over every input there is for chains of one to four targets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from chain_replication import membership
from chain_replication.membership import TABLE, Member, Step, Verdict, next_chain
from fireflyfs.ids import NodeId, TargetId
from fireflyfs.routing import LocalState, PublicState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

S, L, Y, W, F = PublicState
UP, ON, OFF = LocalState
HOLDERS = (S, L)


def chain(*states: tuple[PublicState, LocalState]) -> tuple[Member, ...]:
    return tuple(
        Member(TargetId(n), NodeId(100 + n), public, local)
        for n, (public, local) in enumerate(states, 1)
    )


def every_chain() -> Iterator[tuple[Member, ...]]:
    pairs = list(itertools.product(PublicState, LocalState))
    for size in range(1, 5):
        for states in itertools.product(pairs, repeat=size):
            yield chain(*states)


def legal(members: Sequence[Member]) -> bool:
    """What ``next_chain`` itself can have published: in order, one syncing, never beside nobody."""
    states = [m.public for m in members]
    return (
        states == sorted(states)
        and states.count(Y) <= 1
        and (S in states) != (L in states)
        and (S in states or Y not in states)
    )


def states(step: Step) -> list[PublicState]:
    return [m.public for m in step.members]


def publics(members: Sequence[Member]) -> dict[TargetId, PublicState]:
    return {m.target_id: m.public for m in members}


def settled(step: Step) -> tuple[Member, ...]:
    """The manager's belief right after the step: a restart and a claim to be synced are spent."""

    def local(member: Member) -> LocalState:
        if member.local is OFF:
            return OFF
        return UP if member.public is S else ON

    return tuple(m._replace(local=local(m)) for m in step.members)


def check_invariants(before: Sequence[Member], step: Step) -> None:
    old, new = publics(before), publics(step.members)
    assert sorted(old) == sorted(new)
    assert states(step) == sorted(states(step)), "the order contract"
    assert states(step).count(Y) <= 1
    assert Y not in states(step) or S in states(step), "one syncs only from one that serves"
    if any(state in HOLDERS for state in old.values()):
        assert any(state in HOLDERS for state in new.values()), "the last holder is kept"
        assert (S in states(step)) != (L in states(step))
    else:
        assert S not in states(step)
        assert L not in states(step)
    for member in before:
        check_target(member, new[member.target_id], old)
    assert step.changed == (
        tuple(step.members) != tuple(before) or any((m.public, m.local) == (S, ON) for m in before)
    )
    assert step.changed == bool(step.reasons) or not legal(before)


def check_target(member: Member, now: PublicState, old: dict[TargetId, PublicState]) -> None:
    if member.local is OFF:
        assert now in (L, F)
    if member.public in (W, F):
        assert now not in HOLDERS, "no way to SERVING but by SYNCING"
    if member.public is Y:
        assert now is not L
        if now is S:
            assert member.local is UP
            assert S in old.values(), "it had one to sync from"
    if now is S and member.public is S and member.local is ON:
        assert S in old.values()


def test_every_input_keeps_the_invariants() -> None:
    count = 0
    for members in every_chain():
        count += 1
        step = next_chain(members)
        check_invariants(members, step)
        again = next_chain(settled(step))
        assert not again.changed, (members, step, again)
    assert count == 15 + 15**2 + 15**3 + 15**4


def test_restarted_targets_never_serve_side_by_side() -> None:
    """Each may hold updates that were never acknowledged: one commits its own, the rest sync."""
    for members in every_chain():
        step = next_chain(members)
        serving = [m for m in step.members if m.public is S]
        if any(m.local is not UP for m in serving):
            assert len(serving) == 1


def test_an_unbroken_serving_target_stays() -> None:
    for members in every_chain():
        now = publics(next_chain(members).members)
        assert all(now[m.target_id] is S for m in members if (m.public, m.local) == (S, UP))


def test_every_row_of_the_table_is_reached_by_a_legal_chain() -> None:
    reached: set[tuple[PublicState, LocalState, Verdict]] = set()
    for members in filter(legal, every_chain()):
        verdicts = membership.verdicts(members)
        reached |= {(m.public, m.local, v) for m, v in zip(members, verdicts, strict=True)}
    never = {
        *((L, local, Verdict.HALT) for local in LocalState),  # LASTSRV beside SERVING
        *((Y, UP, v) for v in (Verdict.SYNC, Verdict.STAND_BY, Verdict.HALT)),  # it is promoted
        (Y, ON, Verdict.STAND_BY),  # two of them
    }
    assert set(TABLE) - reached == never


def test_reasons_are_sentences_about_the_target() -> None:
    step = next_chain(chain((S, UP), (S, OFF), (W, ON)))
    assert step.reasons == (
        "target 2 SERVING -> OFFLINE: lost while others serve",
        "target 3 WAITING -> SYNCING: its turn to catch up",
    )
    assert all(outcome.reason for outcome in TABLE.values())
    assert {verdict for _, _, verdict in TABLE} == set(Verdict)


@pytest.mark.parametrize(
    ("before", "order", "after"),
    [
        pytest.param([(S, UP)] * 3, [1, 2, 3], [S, S, S], id="all is well"),
        pytest.param([(S, OFF), (S, UP), (S, UP)], [2, 3, 1], [S, S, F], id="head lost"),
        pytest.param([(S, ON), (S, UP), (S, UP)], [2, 3, 1], [S, S, Y], id="head restarted"),
        pytest.param([(S, ON), (S, ON), (S, UP)], [3, 1, 2], [S, Y, W], id="two restarted"),
        pytest.param([(S, ON), (S, ON), (S, ON)], [3, 1, 2], [S, Y, W], id="all restarted"),
        pytest.param([(S, OFF), (S, ON), (S, OFF)], [2, 1, 3], [S, F, F], id="one returned"),
        pytest.param([(S, OFF)] * 3, [1, 2, 3], [L, L, L], id="all lost at once"),
        pytest.param([(L, OFF), (L, ON), (L, OFF)], [2, 1, 3], [S, F, F], id="first back serves"),
        pytest.param([(L, ON), (L, UP), (F, UP)], [2, 1, 3], [S, Y, W], id="two back at once"),
        pytest.param([(L, OFF), (F, UP)], [1, 2], [L, W], id="an old copy may not serve"),
        pytest.param([(S, UP), (Y, UP)], [1, 2], [S, S], id="synced"),
        pytest.param([(S, UP), (Y, UP), (W, ON)], [1, 2, 3], [S, S, Y], id="next one's turn"),
        pytest.param([(S, OFF), (Y, UP)], [2, 1], [S, F], id="synced as its source was lost"),
        pytest.param([(S, ON), (Y, UP)], [2, 1], [S, Y], id="synced as its source restarted"),
        pytest.param([(S, OFF), (Y, ON)], [1, 2], [L, W], id="source lost while syncing"),
        pytest.param([(S, UP), (Y, OFF), (W, ON)], [1, 3, 2], [S, Y, F], id="syncing one lost"),
        pytest.param([(S, UP), (F, ON)], [1, 2], [S, Y], id="returned"),
    ],
)
def test_what_happens(
    before: list[tuple[PublicState, LocalState]], order: list[int], after: list[PublicState]
) -> None:
    step = next_chain(chain(*before))
    assert [m.target_id for m in step.members] == order
    assert states(step) == after


def test_a_restart_makes_a_new_version_even_where_no_state_changes() -> None:
    step = next_chain(chain((S, ON), (Y, ON)))
    assert states(step) == [S, Y]
    assert step.changed
    assert step.reasons == ("target 1 SERVING -> SERVING: restarted, serves alone",)
