"""What the manager believes about the cluster, and what it decides from it. Pure: ``now`` is given.

``State`` joins the stored table with what was heard since this manager started. Heartbeats come in
(``heartbeat``), time passes (``notice_silence``), and ``evaluate`` answers with the change to be
stored; once it is, ``adopt`` makes the new table the state. Times are seconds of one monotonic
clock.

**Who is dead.** A node that was not heard for ``FAILURE_SECONDS`` since the last accepted heartbeat
*arrived*. It counts its lease, which is shorter, from when it *sent* that heartbeat, so it has
stopped answering by then. A manager that starts knows nothing: nobody is dead before the same time
has passed since the start, and a chain is left as it is until each of its nodes was heard or is
dead.

**Who restarted.** A node draws a new generation when it starts. One that the table does not show is
*announced*; it is *judged*, that is stored, in the same change that passes each of its targets to
``membership.next_chain`` as ONLINE, so a restart counts exactly once. A restart is not judged by
what was true before it: after ``kill -9`` of all nodes, the first that returns must not be demoted
because the others, silent for less than the bound, still look alive; they may never return, and all
hold every acknowledged write. So a node is judged once each node that serves beside it is dead, or
was heard after the announcement and goes on or is itself being judged. That takes one heartbeat
interval when the others live, and at most ``FAILURE_SECONDS``. All its chains are decided in that
change, so a node with a chain that must be left as it is yet is not judged yet.

**The first start** of a node (stored generation 0) is no restart: nothing was ever acknowledged
without it by a chain in which it serves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chain_replication.manager.records import ChainRecord, Change
from chain_replication.membership import Member, next_chain
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainVersion, Generation
from fireflyfs.limits import FAILURE_HEARTBEATS, HEARTBEAT_INTERVAL
from fireflyfs.routing import ChainTarget, LocalState, PublicState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chain_replication.manager.records import NodeRecord, Table
    from fireflyfs.ids import ChainId, NodeId, TargetId
    from fireflyfs.routing import Chain, Role

FAILURE_SECONDS = HEARTBEAT_INTERVAL * FAILURE_HEARTBEATS
_FORMER = 8
"""Generations of one node remembered as superseded."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says about one of its targets (``TargetReport`` in cluster.proto)."""

    state: LocalState
    chain_version: int = 0
    used_bytes: int = 0
    capacity_bytes: int = 0
    chunks: int = 0
    reason: str = ""
    sync_remaining: int = 0
    disk: str = ""


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat, checked in form only."""

    node_id: NodeId
    generation: Generation
    role: Role
    name: str
    addresses: tuple[str, ...]
    targets: Mapping[TargetId, Report] = field(default_factory=dict)


@dataclass(slots=True)
class Presence:
    """What was heard of a node since this manager started."""

    since: float
    """When silence began to count: the last heartbeat, or the start of the manager."""
    generation: Generation
    superseded: deque[Generation]
    heard: bool = False
    announced_at: float = 0.0
    """When a generation was first heard that the table does not show (yet)."""
    addresses: tuple[str, ...] = ()
    reports: Mapping[TargetId, Report] = field(default_factory=dict)


class State:
    def __init__(self, table: Table, now: float) -> None:
        self.table = table
        self._presence: dict[NodeId, Presence] = {}
        self._chains_of: dict[NodeId, set[ChainId]] = {}
        self._touched: set[NodeId] = set()
        """Nodes about which something may have to be decided."""
        self._waiting: set[NodeId] = set()
        """Nodes about which too little was known; a neighbour's heartbeat or time may help."""
        self.adopt(table, now, everything=True)

    def adopt(self, table: Table, now: float, *, everything: bool = False) -> None:
        """``table`` is what is stored now; ``everything``: look at all of it again."""
        for node_id, record in table.nodes.items():
            if node_id not in self._presence:
                former = deque(record.former, maxlen=_FORMER)
                self._presence[node_id] = Presence(now, record.node.generation, former)
                self._chains_of[node_id] = set()
        if everything or len(table.chains) != len(self.table.chains):
            for chain_id, chain in table.chains.items():
                for target in chain.chain.targets:
                    self._chains_of[target.node_id].add(chain_id)
            self._touched = set(table.nodes)
        self.table = table

    # What comes in

    def heartbeat(self, beat: Beat, now: float) -> None:
        """Take note of a heartbeat that arrived.

        Errors:
            FsError: ``NOT_FOUND`` for a node that is not registered; ``INVALID`` for one that is
            somebody else, or reports targets of others; ``SUPERSEDED`` when a process that started
            later bears the same name: the caller must stop.
        """
        record = self.table.nodes.get(beat.node_id)
        if record is None:
            raise FsError(Code.NOT_FOUND, f"node {beat.node_id} is not registered")
        _check_identity(beat, record)
        presence = self._presence[beat.node_id]
        if beat.generation in presence.superseded:
            raise FsError(
                Code.SUPERSEDED, f"a newer process runs as {record.node.name} (node {beat.node_id})"
            )
        if self._is_news(beat, presence, record, now):
            self._touched.add(beat.node_id)
        if self._waiting:
            self._touched |= self._waiting & self._neighbours(beat.node_id)
        newer = beat.generation != presence.generation
        if self.silent(beat.node_id, now) or (newer and not self._announced(beat.node_id)):
            presence.announced_at = now
        if newer and presence.generation:
            presence.superseded.append(presence.generation)
        presence.generation = beat.generation
        presence.since, presence.heard = now, True
        presence.addresses, presence.reports = beat.addresses, dict(beat.targets)

    def _is_news(self, beat: Beat, presence: Presence, record: NodeRecord, now: float) -> bool:
        """Something in it may lead to a decision (how full a target is does not)."""

        def essence(reports: Mapping[TargetId, Report]) -> dict[TargetId, tuple[LocalState, int]]:
            return {t: (r.state, r.chain_version) for t, r in reports.items()}

        return (
            not presence.heard
            or not record.node.alive
            or self.silent(beat.node_id, now)
            or beat.generation != record.node.generation
            or beat.addresses != record.node.addresses
            or essence(beat.targets) != essence(presence.reports)
        )

    def notice_silence(self, now: float) -> None:
        """Time has passed: nodes not heard for too long, and those that wait, are looked at."""
        self._touched |= self._waiting
        self._touched.update(
            node_id
            for node_id, record in self.table.nodes.items()
            if record.node.alive and self.silent(node_id, now)
        )

    # What is known

    def silent(self, node: NodeId, now: float) -> bool:
        """It counts as dead."""
        return now - self._presence[node].since >= FAILURE_SECONDS

    def silence(self, node: NodeId, now: float) -> float:
        """Seconds since its last heartbeat (or since this manager started)."""
        return now - self._presence[node].since

    def report(self, target: ChainTarget) -> Report | None:
        return self._presence[target.node_id].reports.get(target.target_id)

    def may_renew_lease(self, node: NodeId) -> bool:
        """It has applied every decision to take it out of serving, so it may go on answering.

        A node that was away, and comes back with a routing in which it still serves, must not have
        a lease before it has caught up with the routing.
        """
        for chain_id in self._chains_of.get(node, ()):
            chain = self.table.chains[chain_id].chain
            for target in chain.targets:
                if target.node_id == node and target.state is not PublicState.SERVING:
                    report = self.report(target)
                    if report is not None and report.chain_version != chain.version:
                        return False
        return True

    def _announced(self, node: NodeId) -> bool:
        stored = self.table.nodes[node].node.generation
        return stored != 0 and self._presence[node].generation != stored

    # What is decided

    def evaluate(self, now: float) -> Change:
        """What has to change; empty for nothing. Ask again, also if storing it failed."""
        if not self._touched:
            return Change()
        judged = self._judged(now)
        affected = {c for node in self._touched for c in self._chains_of[node]}
        unsettled = {c for c in affected if not self._settled(self._chain(c), judged, now)}
        change = Change(
            nodes=tuple(self._changed_nodes(judged, now)),
            chains=tuple(self._changed_chains(sorted(affected - unsettled), judged, now)),
        )
        if not change:
            self._waiting -= self._touched
            self._waiting |= {n for n in self._touched if self._is_open(n, unsettled, now)}
            self._touched = set()
        return change

    def _is_open(self, node: NodeId, unsettled: set[ChainId], now: float) -> bool:
        waits = self._announced(node) and not self.silent(node, now)
        return waits or not unsettled.isdisjoint(self._chains_of[node])

    def _judged(self, now: float) -> set[NodeId]:
        """Announced nodes whose restart can be judged now (see the module's docstring)."""
        ready = {n for n in self._touched if self._announced(n) and not self.silent(n, now)}
        while True:
            blocked = {n for n in ready if not self._may_be_judged(n, ready, now)}
            if not blocked:
                return ready
            ready -= blocked

    def _may_be_judged(self, node: NodeId, ready: set[NodeId], now: float) -> bool:
        """Enough is known, and each of its chains is decided in the same change: a generation that
        is stored without it would be a restart that never counts."""
        chains = (self._chain(chain_id) for chain_id in self._chains_of[node])
        return self._peers_are_known(node, ready, now) and all(
            self._settled(chain, ready, now) for chain in chains
        )

    def _peers_are_known(self, node: NodeId, ready: set[NodeId], now: float) -> bool:
        announced_at = self._presence[node].announced_at
        for peer in self._serving_peers(node):
            presence = self._presence[peer]
            heard_since = presence.heard and presence.since >= announced_at
            if self.silent(peer, now):
                continue
            if not heard_since or (self._announced(peer) and peer not in ready):
                return False
        return True

    def _neighbours(self, node: NodeId) -> set[NodeId]:
        """The nodes of its chains, itself included."""
        chains = (self._chain(chain_id) for chain_id in self._chains_of[node])
        return {t.node_id for chain in chains for t in chain.targets}

    def _serving_peers(self, node: NodeId) -> set[NodeId]:
        """Nodes that serve beside it in one of its chains."""
        peers: set[NodeId] = set()
        for chain_id in self._chains_of[node]:
            serving = {t.node_id for t in self._chain(chain_id).serving}
            if node in serving:
                peers |= serving
        return peers - {node}

    def _settled(self, chain: Chain, judged: set[NodeId], now: float) -> bool:
        """Enough is known of all its nodes to decide."""
        return all(
            self.silent(t.node_id, now)
            or (
                self._presence[t.node_id].heard
                and (t.node_id in judged or not self._announced(t.node_id))
            )
            for t in chain.targets
        )

    def _changed_nodes(self, judged: set[NodeId], now: float) -> Iterable[NodeRecord]:
        for node_id in sorted(self._touched):
            record, presence = self.table.nodes[node_id], self._presence[node_id]
            if self.silent(node_id, now):
                after = replace(record, node=replace(record.node, alive=False))
            elif not presence.heard or (self._announced(node_id) and node_id not in judged):
                continue
            else:
                node = replace(
                    record.node,
                    generation=presence.generation,
                    addresses=presence.addresses,
                    alive=True,
                )
                after = replace(record, node=node, former=tuple(presence.superseded))
            if after != record:
                yield after

    def _changed_chains(
        self, chains: Iterable[ChainId], judged: set[NodeId], now: float
    ) -> Iterable[ChainRecord]:
        for chain_id in chains:
            chain = self._chain(chain_id)
            step = next_chain([self._member(chain, t, judged, now) for t in chain.targets])
            if step.changed:
                targets = tuple(ChainTarget(m.target_id, m.node_id, m.public) for m in step.members)
                version = ChainVersion(chain.version + 1)
                after = replace(chain, version=version, targets=targets)
                yield ChainRecord(after, "; ".join(step.reasons))

    def _member(self, chain: Chain, target: ChainTarget, judged: set[NodeId], now: float) -> Member:
        local = self._believed(chain, target, judged, now)
        return Member(target.target_id, target.node_id, target.state, local)

    def _believed(
        self, chain: Chain, target: ChainTarget, judged: set[NodeId], now: float
    ) -> LocalState:
        """The local state as ``membership`` means it."""
        report = self.report(target)
        if self.silent(target.node_id, now) or report is None or report.state is LocalState.OFFLINE:
            return LocalState.OFFLINE
        if target.node_id in judged:
            return LocalState.ONLINE
        if target.state is PublicState.SERVING:
            # Same process as when it was made to serve: if it does not say so, it has not heard.
            return LocalState.UPTODATE
        synced = report.state is LocalState.UPTODATE and report.chain_version == chain.version
        if target.state is PublicState.SYNCING and synced:
            return LocalState.UPTODATE
        return LocalState.ONLINE

    def _chain(self, chain_id: ChainId) -> Chain:
        return self.table.chains[chain_id].chain


def _check_identity(beat: Beat, record: NodeRecord) -> None:
    if (beat.role, beat.name) != (record.node.role, record.node.name):
        raise FsError(
            Code.INVALID,
            f"node {beat.node_id} is {record.node.role.name} {record.node.name!r}, "
            f"not {beat.role.name} {beat.name!r}",
        )
    foreign = [t for t in beat.targets if t not in record.targets]
    if foreign:
        raise FsError(Code.INVALID, f"target {foreign[0]} is not of node {beat.node_id}")
