"""What must hold at every moment, seen by one who sees everything; and the rare states met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.versions import recorded
from fireflyfs.routing import LocalState, PublicState
from fireflyfs.updates import UpdateKind
from tests.simulation.history import Loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain_replication.events import Update
    from chain_replication.manager.records import Table
    from fireflyfs.ids import TargetId
    from tests.simulation.history import History
    from tests.simulation.kernel import Kernel
    from tests.simulation.store import Record, SimStore
    from tests.simulation.targets import Target

PROBES = (
    "read parked",
    "parked read expired",
    "pending version committed after a restart",
    "resync done",
    "resync began anew",
    "resync meets an update in flight",
    "update forwarded whole to a syncing replica",
    "removal forwarded to a syncing replica",
    "repeat of a finished update",
    "repeat joins an update in flight",
    "update done at a later attempt",
    "commit after a chain change",
    "update forwarded again after a chain change",
    "died between storing and hearing of it",
    "replica steps down",
    "update of a former chain version refused",
    "a lease is withheld",
    "an answer is withheld for want of a lease",
    "a manager is deposed",
    "unknown commit was committed",
    "chain without a serving replica",
    "revived from the tail",
    "lost by a power cut",
    "emptied disk replaced",
    "client told that there is no space",
    "serves alone",
)
"""Each must be met by some seed: else the simulation is too tame."""


class Watch:
    def __init__(
        self, kernel: Kernel, history: History, stores: Mapping[TargetId, SimStore], table: Table
    ) -> None:
        self.kernel = kernel
        self.history = history
        self.stores = stores
        self.table = table
        self.removed: set[bytes] = set()
        """Chunks that a client has tried to remove: their versions may begin anew."""
        self._heads: dict[tuple[int, int], tuple[int, int]] = {}
        self._stored_under: dict[tuple[int, int, int], int] = {}
        self._offered: set[tuple[int, int]] = set()

    # The manager

    def table_changed(self, before: Table, after: Table) -> None:
        self.table = after
        for number, record in after.chains.items():
            chain, former = record.chain, before.chains[number].chain
            if chain.version == former.version:
                continue
            self.kernel.trace("table", f"chain {number} v{chain.version}:", record.last_change)
            if chain.version != former.version + 1:
                self.kernel.violation(f"chain {number}: {former.version} -> {chain.version}")
            serving = chain.serving
            if not serving:
                self.kernel.probe("chain without a serving replica")
                if not any(t.state is PublicState.LASTSRV for t in chain.targets):
                    self.kernel.violation(f"chain {number} has no holder left")
            elif not former.serving:
                self.kernel.probe("revived from the tail")
            if len(serving) == 1 and len(chain.targets) > 1:
                self.kernel.probe("serves alone")

    # Replicas

    def stepped(self, target: Target, event: ev.Event, actions: list[act.Action]) -> None:
        if isinstance(event, ev.ClientUpdate):
            self._arrived(target, event, actions)
        elif isinstance(event, ev.PendingsCommitted):
            self._activated(target)
        if target.standing.local is LocalState.UPTODATE and target.standing.synced:
            target.store.tainted = target.store.emptied = False
        for action in actions:
            if isinstance(action, act.Forward):
                self._forwarded(target, action)
            elif isinstance(action, act.Persist):
                self._stored_under[self._key(target, action.op)] = action.chain_version
            elif isinstance(action, act.Commit):
                if self._stored_under[self._key(target, action.op)] != action.chain_version:
                    self.kernel.probe("commit after a chain change")
            elif isinstance(action, act.LocalChanged) and (
                target.standing.local is LocalState.OFFLINE
            ):
                self.kernel.probe("replica steps down")

    def _key(self, target: Target, op: int) -> tuple[int, int, int]:
        return target.target, target.node.generation, op

    def _arrived(self, target: Target, event: ev.ClientUpdate, actions: list[act.Action]) -> None:
        answers = [a for a in actions if isinstance(a, act.Reply | act.Refuse)]
        mine = [a for a in answers if a.request == event.request]
        if mine and isinstance(mine[0], act.Refuse):
            if event.chain_version < target.standing.chain_version:
                self.kernel.probe("update of a former chain version refused")
            return
        if mine:
            self.kernel.probe("repeat of a finished update")
        elif any(isinstance(a, act.Release) and a.request == event.request for a in actions):
            self.kernel.probe("repeat joins an update in flight")
        chain = target.standing.chain
        assert chain is not None
        me = (target.target, target.node.generation)
        head = self._heads.setdefault((chain.chain_id, event.chain_version), me)
        if head != me:
            self.kernel.violation(
                f"chain {chain.chain_id} version {event.chain_version}: "
                f"two heads accept, target {head[0]} and target {me[0]}"
            )

    def _forwarded(self, target: Target, action: act.Forward) -> None:
        if action.target.state is PublicState.SYNCING:
            removes = action.update.kind is UpdateKind.REMOVE
            how = "removal forwarded" if removes else "update forwarded whole"
            self.kernel.probe(f"{how} to a syncing replica")
        if self._stored_under.get(self._key(target, action.op), action.chain_version) != (
            action.chain_version
        ):
            self.kernel.probe("update forwarded again after a chain change")

    def _activated(self, target: Target) -> None:
        """It serves again with what it holds; if a power cut has taken something, that is lost."""
        if not target.standing.is_serving or not target.store.tainted:
            return
        self.kernel.probe("lost by a power cut")
        target.store.tainted = False
        chain = target.standing.chain
        assert chain is not None
        found = {
            chunk: (r.committed.number, r.committed.content)
            for chunk, r in target.store.records.items()
            if r.committed is not None
        }
        loss = Loss(self.kernel.now, found)
        self.history.losses.setdefault(chain.chain_id, []).append(loss)
        self.kernel.trace("CHECK", f"chain {chain.chain_id} goes on with {found}")

    # Answers

    def acknowledged(self, chain: int, update: Update, version: int) -> None:
        """Every replica that the manager believes to serve must hold it."""
        if update.chunk in self.removed:
            return
        for target in self.table.chains[chain].chain.serving:  # type: ignore[index]
            store = self.stores[target.target_id]
            record = store.records.get(update.chunk)
            tags = record.meta().tags if record is not None else ()
            held = recorded(tags, update.client)
            if not (store.tainted or store.emptied) and (
                held is None or held.sequence < update.sequence
            ):
                self.kernel.violation(
                    f"version {version} of {update.chunk!r} is acknowledged, but target "
                    f"{target.target_id} serves without it"
                )

    def read(self, target: Target) -> None:
        """A lease holds for as long as the manager does not let the others go on alone."""
        for record in self.table.chains.values():
            mine = record.chain.find(target.target)
            if mine is not None and mine.state is not PublicState.SERVING:
                self.kernel.violation(
                    f"target {target.target} answers a read, but is {mine.state.name}"
                )

    # Stores

    def stored(
        self, target: Target, chunk: bytes, before: Record | None, after: Record | None
    ) -> None:
        old = before.committed.number if before is not None and before.committed else 0
        new = after.committed.number if after is not None and after.committed else 0
        serves = target.standing.is_serving
        if serves and chunk not in self.removed and new not in (old, old + 1) and old:
            self.kernel.violation(
                f"target {target.target} serves and goes from version {old} of {chunk!r} to {new}"
            )
