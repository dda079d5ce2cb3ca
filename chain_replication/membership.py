"""Membership of one chain: who serves, who catches up, who waits. Pure.

The manager calls ``next_chain`` with what it has published about each target (``PublicState``) and
with what it believes about each target now (``LocalState``), and publishes the answer as the next
version of the chain. Everything rests on one invariant:

    every SERVING target, or, when there is none, every LASTSRV target, is a *holder*: it holds
    every update that the chain ever acknowledged.

An update is acknowledged only after every target that serves in the chain version at hand has
persisted it (and the syncing one, too), so whoever serves is a holder, and stays one for as long as
nobody serves without it. One step is decided in two moves:

1. Who serves. The holders that never stopped (SERVING and up to date) go on, and a SYNCING target
   that is up to date joins them. Where none of these is left, the first holder that is alive serves
   *alone*: one that restarted may hold updates that were never acknowledged, each holder different
   ones, so two restarted holders may not serve side by side before one has synced from the other.
   Where no holder is alive nobody serves: the holders become (or stay) LASTSRV, all of them,
   because nothing was acknowledged without any of them; whichever returns first serves.
2. Every other target catches up. One at a time is SYNCING: the one that is already at it, or the
   first that is alive, in chain order. The rest is WAITING, or OFFLINE where the disk or its node
   is gone. Nobody syncs while nobody serves.

``TABLE`` says the outcome and its reason for each (public state, local state, verdict of the two
moves).

What ``LocalState`` means here (the manager's belief, not the raw report; ``manager.state``):
``ONLINE`` on a SERVING target is an event, passed once: its process restarted since the chain last
changed. Its former process is gone with whatever it had in flight, so a restart always makes a new
chain version, even where no state changes: a late message of the former process is then refused.
``UPTODATE`` on a SYNCING target: it has everything as of the chain's *current* version. On other
targets UPTODATE is a claim of the past and means ONLINE.

3FS describes one table (``docs/design_notes.md``) and runs another (``updateChain.cc``); of these:

- an OFFLINE target that returns goes straight to SYNCING if somebody serves and nobody syncs (the
  code), not by way of WAITING (the document): waiting a round protects nothing;
- any serving target is source enough (the code), not only the predecessor (the document): the last
  serving one is the source, and the order SERVING before SYNCING makes it the predecessor;
- LASTSRV becomes OFFLINE, or syncs, once somebody serves (the code): it may have missed updates;
- unlike both, *all* holders lost in one step become LASTSRV, not the first only: the chain then
  does not hang on one disk while others hold the same content;
- unlike both, a restarted target does not have to be declared offline first (3FS's storage waits
  in a loop until the manager has noticed): its new generation says that it restarted.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from fireflyfs.routing import LocalState, PublicState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fireflyfs.ids import NodeId, TargetId


class Member(NamedTuple):
    """One target of the chain: what is published about it, and what is believed about it now."""

    target_id: TargetId
    node_id: NodeId
    public: PublicState
    local: LocalState


class Verdict(enum.Enum):
    """What the two moves decided for a target."""

    SERVE = "serve"
    SYNC = "sync"
    STAND_BY = "stand by"
    """Somebody else serves, and it is not this target's turn to sync."""
    KEEP = "keep"
    """Nobody serves, and this target is one of the holders."""
    HALT = "halt"
    """Nobody serves, and this target is no holder."""


class Outcome(NamedTuple):
    state: PublicState
    reason: str


class Step(NamedTuple):
    """``members`` in the new chain order with their new public states (local ones as given);
    ``reasons``: one sentence for each target that changed or restarted; ``changed``: the chain
    needs a new version."""

    members: tuple[Member, ...]
    reasons: tuple[str, ...]
    changed: bool


_ALIVE = (LocalState.UPTODATE, LocalState.ONLINE)
_GONE = (LocalState.OFFLINE,)


def _table() -> dict[tuple[PublicState, LocalState, Verdict], Outcome]:
    serving, lastsrv, syncing, waiting, offline = PublicState
    rows: list[tuple[PublicState, tuple[LocalState, ...], Verdict, PublicState, str]] = [
        (serving, (LocalState.UPTODATE,), Verdict.SERVE, serving, "serves"),
        (serving, (LocalState.ONLINE,), Verdict.SERVE, serving, "restarted, serves alone"),
        (serving, (LocalState.ONLINE,), Verdict.SYNC, syncing, "restarted, catches up"),
        (serving, (LocalState.ONLINE,), Verdict.STAND_BY, waiting, "restarted, waits"),
        (serving, _GONE, Verdict.STAND_BY, offline, "lost while others serve"),
        (serving, _GONE, Verdict.KEEP, lastsrv, "lost as one of the last that served"),
        (lastsrv, _ALIVE, Verdict.SERVE, serving, "returned first of the last that served"),
        (lastsrv, _ALIVE, Verdict.SYNC, syncing, "returned after another serves, catches up"),
        (lastsrv, _ALIVE, Verdict.STAND_BY, waiting, "returned after another serves, waits"),
        (lastsrv, _GONE, Verdict.STAND_BY, offline, "another of the last that served returned"),
        (lastsrv, _GONE, Verdict.KEEP, lastsrv, "must return: one of the last that served"),
        (lastsrv, _ALIVE, Verdict.HALT, waiting, "others served after it"),
        (lastsrv, _GONE, Verdict.HALT, offline, "others served after it"),
        (syncing, (LocalState.UPTODATE,), Verdict.SERVE, serving, "has caught up"),
        (syncing, _ALIVE, Verdict.SYNC, syncing, "catches up"),
        (syncing, _ALIVE, Verdict.STAND_BY, waiting, "waits: another catches up"),
        (syncing, _GONE, Verdict.STAND_BY, offline, "lost while catching up"),
        (syncing, _ALIVE, Verdict.HALT, waiting, "nobody serves to catch up from"),
        (syncing, _GONE, Verdict.HALT, offline, "lost while catching up"),
        (waiting, _ALIVE, Verdict.SYNC, syncing, "its turn to catch up"),
        (waiting, _ALIVE, Verdict.STAND_BY, waiting, "waits for its turn to catch up"),
        (waiting, _GONE, Verdict.STAND_BY, offline, "lost while waiting"),
        (waiting, _ALIVE, Verdict.HALT, waiting, "nobody serves to catch up from"),
        (waiting, _GONE, Verdict.HALT, offline, "lost while waiting"),
        (offline, _ALIVE, Verdict.SYNC, syncing, "returned, catches up"),
        (offline, _ALIVE, Verdict.STAND_BY, waiting, "returned, waits for its turn to catch up"),
        (offline, _GONE, Verdict.STAND_BY, offline, "offline"),
        (offline, _ALIVE, Verdict.HALT, waiting, "returned, nobody serves to catch up from"),
        (offline, _GONE, Verdict.HALT, offline, "offline"),
    ]
    return {
        (public, local, verdict): Outcome(state, reason)
        for public, locals_, verdict, state, reason in rows
        for local in locals_
    }


TABLE: Mapping[tuple[PublicState, LocalState, Verdict], Outcome] = _table()


def next_chain(members: Sequence[Member]) -> Step:
    """One step of a chain, from its members in chain order.

    A fixed point: fed with its own result (and no new event), it changes nothing.
    """
    decided = zip(members, verdicts(members), strict=True)
    outcomes = [TABLE[m.public, m.local, verdict] for m, verdict in decided]
    after = [m._replace(public=o.state) for m, o in zip(members, outcomes, strict=True)]
    ordered = tuple(sorted(after, key=lambda m: m.public))  # stable, and the states sort so
    reasons = tuple(
        f"target {m.target_id} {m.public.name} -> {o.state.name}: {o.reason}"
        for m, o in zip(members, outcomes, strict=True)
        if m.public is not o.state or _restarted(m)
    )
    return Step(ordered, reasons, bool(reasons) or ordered != tuple(members))


def verdicts(members: Sequence[Member]) -> list[Verdict]:
    """The two moves, for each member."""
    serving = _who_serves(members)
    if not serving:
        holders = _holders(members)
        return [Verdict.KEEP if m in holders else Verdict.HALT for m in members]
    others = [m for m in members if m not in serving and m.local is not LocalState.OFFLINE]
    syncing = next((m for m in others if m.public is PublicState.SYNCING), None)
    turn = syncing or next(iter(others), None)
    return [
        Verdict.SERVE if m in serving else Verdict.SYNC if m is turn else Verdict.STAND_BY
        for m in members
    ]


def _who_serves(members: Sequence[Member]) -> list[Member]:
    holders = _holders(members)
    unbroken = [m for m in members if m.local is LocalState.UPTODATE and _in_step(m, holders)]
    if unbroken:
        return unbroken
    return [m for m in holders if m.local is not LocalState.OFFLINE][-1:]


def _in_step(member: Member, holders: Sequence[Member]) -> bool:
    """It serves, or it syncs from one that serves: a claim to be up to date counts."""
    chain_serves = bool(holders) and holders[0].public is PublicState.SERVING
    return chain_serves and member.public in (PublicState.SERVING, PublicState.SYNCING)


def _holders(members: Sequence[Member]) -> list[Member]:
    serving = [m for m in members if m.public is PublicState.SERVING]
    return serving or [m for m in members if m.public is PublicState.LASTSRV]


def _restarted(member: Member) -> bool:
    return member.public is PublicState.SERVING and member.local is LocalState.ONLINE
