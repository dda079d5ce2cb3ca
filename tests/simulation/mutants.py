"""The proof that the proof works: bugs planted one at a time, each of which a seed must find.

A mutant replaces a function of the protocol, of the manager, or of what stands in for the drivers
here; the production code knows nothing of it. ``python -m tests.simulation.mutants`` says how many
seeds each needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication import membership, pipeline, resync, turn, versions
from chain_replication.manager import state
from chain_replication.operation import Operation, Remote
from chain_replication.pipeline import Pipeline
from chain_replication.replica import Replica
from chain_replication.standing import Standing
from chain_replication.versions import Decision, Tombstones, Verdict
from fireflyfs.routing import LocalState, PublicState
from fireflyfs.updates import UpdateKind
from tests.simulation.manager import SharedTable
from tests.simulation.node import StorageNode
from tests.simulation.run import simulate
from tests.simulation.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chain_replication.operation import ChunkQueue

LIMIT = 500
UNFOUND = {
    "no barrier before a resync": "an update must be acknowledged by a successor that is "
    "lost in the very change that makes another sync, and be stored here after the comparison",
    "drop what is pending after a restart": "all must die between an acknowledgement and its "
    "commit, and one return that is not the tail, or that had another syncing from it",
    "recovery writes over what is newer": "a copy must come late, within one syncing chain version",
    "done with a resync of a former life": "a syncing node must lose power, and be back, between "
    "two words of its predecessor",
}
"""Not found within the limit, and what it would take: no excuse, work to be done."""

Substitution = tuple[Any, str, Any]
MUTANTS: dict[str, Callable[[], list[Substitution]]] = {}


def mutant(name: str) -> Callable[[Callable[[], list[Substitution]]], Any]:
    def add(make: Callable[[], list[Substitution]]) -> Callable[[], list[Substitution]]:
        MUTANTS[name] = make
        return make

    return add


@contextmanager
def planted(name: str) -> Iterator[None]:
    with ExitStack() as stack:
        for where, what, instead in MUTANTS[name]():
            stack.enter_context(patch.object(where, what, instead))
        yield


def find(name: str, limit: int = LIMIT, first: int = 0) -> tuple[int, str] | None:
    """The first seed that finds the bug, and what it says."""
    with planted(name):
        for seed in range(first, first + limit):
            try:
                violations = simulate(seed).violations
            except Exception as error:
                return seed, f"{type(error).__name__}: {error}"
            if violations:
                return seed, violations[0]
    return None


def _nothing(*_: object) -> None:
    return None


# An update on its way


@mutant("acknowledge before persist")
def _ack_before_persist() -> list[Substitution]:
    original = Pipeline._persist

    def persist(self: Pipeline, operation: Operation) -> None:
        original(self, operation)
        for request in operation.waiting:
            self._answer(operation, request)
        operation.waiting.clear()

    return [(Pipeline, "_persist", persist)]


@mutant("acknowledge before the successor")
def _ack_before_successor() -> list[Substitution]:
    original = Pipeline.persisted

    def persisted(self: Pipeline, event: ev.Persisted) -> None:
        operation = self._operations.get(event.op)
        if operation is not None and not operation.abandoned:
            operation.remote = Remote.ACKED
        original(self, event)

    return [(Pipeline, "persisted", persisted)]


@mutant("do not forward again after a chain change")
def _no_reroute() -> list[Substitution]:
    def reroute(self: Pipeline, operation: Operation) -> None:
        operation.remote = Remote.ACKED
        self._advance(operation)

    return [(Pipeline, "_reroute", reroute)]


@mutant("serve a dirty read")
def _dirty_read() -> list[Substitution]:
    return [(Pipeline, "readable", lambda *_: True)]


@mutant("apply a repeated forward again")
def _apply_again() -> list[Substitution]:
    def decide(*_: Any, version: int, **__: Any) -> Decision:
        return Decision(Verdict.APPLY, version)

    return [(turn, "decide_forward", decide)]


@mutant("drop what was refused only here")
def _refusal_is_final() -> list[Substitution]:
    def final(self: Pipeline, operation: Operation, code: object) -> bool:
        return True

    return [(Pipeline, "_is_final", final)]


# Exactly once


@mutant("forget the records of clients")
def _forget_records() -> list[Substitution]:
    return [(versions, "recorded", _nothing)]


@mutant("recovery does not bring the records")
def _recovery_without_records() -> list[Substitution]:
    original = turn.tags_with

    def tags_with(*args: Any, is_serving: bool) -> Any:
        return original(*args, is_serving=is_serving) if is_serving else ()

    return [(pipeline, "tags_with", tags_with)]


@mutant("recovery keeps its own records")
def _recovery_with_own_records() -> list[Substitution]:
    original = turn.tags_with

    def tags_with(event: Any, *args: Any, is_serving: bool) -> Any:
        replaces = event.update.kind is UpdateKind.REPLACE
        return original(event, *args, is_serving=is_serving or not replaces)

    return [(pipeline, "tags_with", tags_with)]


@mutant("a removed chunk leaves nothing")
def _no_tombstones() -> list[Substitution]:
    return [(Tombstones, "get", _nothing)]


# Who may ask


@mutant("skip the check of the chain version")
def _any_chain_version() -> list[Substitution]:
    return [(Standing, "check_version", _nothing)]


@mutant("the chain version may be one less")
def _chain_version_off_by_one() -> list[Substitution]:
    original = Standing.check_version

    def check(self: Standing, chain_version: int) -> None:
        if chain_version != self.chain_version - 1:
            original(self, chain_version)

    return [(Standing, "check_version", check)]


@mutant("take updates from any predecessor and any client")
def _any_source() -> list[Substitution]:
    return [
        (Standing, "check_predecessor", _nothing),
        (Standing, "check_version", _nothing),
        (Standing, "check_head", _nothing),
    ]


@mutant("answer without a lease")
def _no_lease() -> list[Substitution]:
    return [(StorageNode, "check_lease", _nothing)]


@mutant("read from a replica that catches up")
def _read_while_syncing() -> list[Substitution]:
    def is_serving(self: Standing) -> bool:
        served = (PublicState.SERVING, PublicState.SYNCING)
        return self.local is not LocalState.OFFLINE and self.public in served

    return [(Standing, "is_serving", property(is_serving))]


@mutant("follow routing from before the restart")
def _former_routing() -> list[Substitution]:
    def follow(self: StorageNode, routing: Any) -> None:
        chains = {t.target_id: chain for chain, t in routing.targets_of(self.node_id)}
        self._by_chain = {c.chain_id: self.targets[number] for number, c in chains.items()}
        for number, target in self.targets.items():
            target.step(ev.RoutingChanged(chains.get(number)))

    return [(StorageNode, "_follow", follow)]


# Coming back


@mutant("serve after a restart without committing what is pending")
def _pendings_ignored() -> list[Substitution]:
    async def commit(self: Target, action: act.CommitPendings) -> None:
        self.step(ev.PendingsCommitted(action.token))

    return [(Target, "_commit_pendings", commit)]


@mutant("drop what is pending after a restart")
def _pendings_dropped() -> list[Substitution]:
    async def drop(self: Target, action: act.CommitPendings) -> None:
        for chunk in sorted(self.store.records):
            await self.store.abort(chunk)
        self.step(ev.PendingsCommitted(action.token))

    return [(Target, "_commit_pendings", drop)]


@mutant("up to date for ever")
def _always_up_to_date() -> list[Substitution]:
    def follow(self: Standing, chain: Any) -> bool:
        self.chain = chain
        self.session = 0
        return False

    return [(Standing, "follow", follow)]


@mutant("no barrier before a resync")
def _no_barrier() -> list[Substitution]:
    def barrier(self: Pipeline, request: int, **_: object) -> None:
        self.actions.append(act.Reply(request, 0, 0, 0))

    return [(Pipeline, "barrier", barrier)]


@mutant("recovery writes over what is newer")
def _recovery_overwrites() -> list[Substitution]:
    def decide(*_: Any, version: int, **__: Any) -> Decision:
        return Decision(Verdict.APPLY, version)

    return [(turn, "decide_recovery", decide)]


@mutant("compare lengths only")
def _compare_lengths() -> list[Substitution]:
    def same(ours: resync.Listed, theirs: resync.Listed) -> bool:
        return ours.length == theirs.length and not theirs.pending

    return [(resync, "_is_same", same)]


@mutant("the newer version wins a comparison")
def _newer_wins() -> list[Substitution]:
    def same(ours: resync.Listed, theirs: resync.Listed) -> bool:
        return ours.version <= theirs.version

    return [(resync, "_is_same", same)]


@mutant("recovery removes nothing")
def _no_removals() -> list[Substitution]:
    original = resync.compare

    def compare(*args: Any) -> resync.Difference:
        return replace(original(*args), removals=[])

    import tests.simulation.resync as driver

    return [(driver, "compare", compare)]


@mutant("forward partial writes to a syncing replica")
def _partial_to_syncing() -> list[Substitution]:
    original = Pipeline._forward

    def forward(self: Pipeline, operation: Operation) -> None:
        original(self, operation)
        last = self.actions[-1] if self.actions else None
        if isinstance(last, act.Forward) and last.payload == operation.payload:
            self.actions[-1] = replace(last, whole=False)

    def forwarded(self: Replica, event: ev.Forwarded) -> None:
        self.standing.check_version(event.chain_version)
        self.standing.check_predecessor(event.source)
        self._pipeline.enqueue(event)

    return [
        (Pipeline, "_forward", forward),
        (Replica, "_forwarded", forwarded),
    ]


@mutant("done with a resync of a former life")
def _done_in_a_former_life() -> list[Substitution]:
    original = Replica._sync_done

    def done(self: Replica, event: ev.SyncDone) -> None:
        self.standing.session = event.chain_version
        original(self, event)

    return [(Replica, "_sync_done", done)]


@mutant("a new update overtakes the one in flight")
def _slot_free_early() -> list[Substitution]:
    original = Pipeline._advance_done

    def done(self: Pipeline, operation: Operation) -> None:
        original(self, operation)
        queue: ChunkQueue | None = self._chunks.get(operation.update.chunk)
        if queue is not None and queue.current is operation and queue.waiting:
            queue.current = None
            self._next(operation.update.chunk, queue)

    return [(Pipeline, "_advance_done", done)]


# The manager


@mutant("a node is dead before its lease ends")
def _dead_too_early() -> list[Substitution]:
    return [(state, "FAILURE_SECONDS", 1.2)]


@mutant("leases for those who lag behind")
def _lease_for_all() -> list[Substitution]:
    return [(state.State, "may_renew_lease", lambda *_: True)]


@mutant("a restart goes unnoticed")
def _restart_unnoticed() -> list[Substitution]:
    original = state.State._believed

    def believed(self: state.State, chain: Any, target: Any, judged: Any, now: float) -> LocalState:
        return original(self, chain, target, set(), now)

    return [(state.State, "_believed", believed)]


@mutant("a restart is judged at once")
def _judged_at_once() -> list[Substitution]:
    return [(state.State, "_may_be_judged", lambda *_: True)]


@mutant("all that restarted serve side by side")
def _all_serve() -> list[Substitution]:
    def serves(members: Any) -> list[membership.Member]:
        return [m for m in membership._holders(members) if m.local is not LocalState.OFFLINE]

    return [(membership, "_who_serves", serves)]


@mutant("whoever returns first serves")
def _anybody_revives() -> list[Substitution]:
    original = membership._holders

    def holders(members: Any) -> list[membership.Member]:
        found = original(members)
        alive = [m for m in members if m.local is not LocalState.OFFLINE]
        return found if any(m in alive for m in found) else alive or found

    outcome = membership.Outcome(PublicState.SERVING, "whoever")
    rows = {
        (public, local, membership.Verdict.SERVE): outcome
        for public in PublicState
        for local in LocalState
    }
    keep = membership.Outcome(PublicState.LASTSRV, "kept")
    rows |= {
        (public, local, membership.Verdict.KEEP): keep
        for public in PublicState
        for local in LocalState
    }
    table = {**rows, **membership.TABLE}
    return [(membership, "_holders", holders), (membership, "TABLE", table)]


@mutant("synced in a former chain version counts")
def _synced_before() -> list[Substitution]:
    original = state.State._believed

    def believed(self: state.State, chain: Any, target: Any, judged: Any, now: float) -> LocalState:
        report = self.report(target)
        local = original(self, chain, target, judged, now)
        if local is LocalState.ONLINE and target.state is PublicState.SYNCING and report:
            return report.state
        return local

    return [(state.State, "_believed", believed)]


@mutant("two managers write")
def _no_fence() -> list[Substitution]:
    return [(SharedTable, "_check_term", _nothing)]


@mutant("the last holder goes offline")
def _wrong_target_offline() -> list[Substitution]:
    rows = dict(membership.TABLE)
    for local in LocalState:
        key = (PublicState.SERVING, local, membership.Verdict.KEEP)
        if key in rows:
            rows[key] = membership.Outcome(PublicState.OFFLINE, "lost")
    return [(membership, "TABLE", rows)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="all if none")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seeds for each")
    options = parser.parse_args()
    survived = 0
    for name in options.names or MUTANTS:
        began = time.monotonic()
        found = find(name, options.limit)
        seconds = time.monotonic() - began
        survived += found is None
        what = "SURVIVES" if found is None else f"seed {found[0]:3}: {found[1][:110]}"
        print(f"{name:55} {seconds:5.1f} s  {what}", flush=True)
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main())
