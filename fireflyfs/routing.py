"""Who holds what: nodes, chains and their targets, as the cluster manager last published it.

Frozen values and look-ups only. A routing table has a version that grows with every change; a chain
has its own, which every update of a chunk carries.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fireflyfs.ids import ChainId, ChainVersion, Generation, NodeId, TargetId


class PublicState(enum.IntEnum):
    """What the manager has decided about a target; readers and writers go by it."""

    SERVING = 1
    """Holds every acknowledged write; answers reads; part of the write path."""
    LASTSRV = 2
    """Was serving when the last serving target was lost: only such a one may revive the chain."""
    SYNCING = 3
    """Receives all new writes (as whole chunks) and the difference; answers no reads."""
    WAITING = 4
    """Alive, waits for its turn to sync or for a target to sync from."""
    OFFLINE = 5


class LocalState(enum.IntEnum):
    """What a storage node says about its own target."""

    UPTODATE = 1
    """Holds everything that its chain committed, as of the chain version it reports."""
    ONLINE = 2
    """The disk is there, but the content may be old (after a restart, or while syncing)."""
    OFFLINE = 3


class Role(enum.IntEnum):
    STORAGE = 1
    META = 2


@dataclass(frozen=True, slots=True)
class Node:
    node_id: NodeId
    role: Role
    name: str
    """Host name, for people and for finding peers of the same host."""
    generation: Generation
    """Drawn at the start of the process that the manager last heard; a node activates its SERVING
    targets only when it finds its own generation here (so the manager has seen its restart)."""
    addresses: tuple[str, ...]
    """Data-plane addresses, best first: ``unix:///path``, ``tcp://host:port``."""
    alive: bool


@dataclass(frozen=True, slots=True)
class ChainTarget:
    target_id: TargetId
    node_id: NodeId
    state: PublicState


@dataclass(frozen=True, slots=True)
class Chain:
    """One replication chain. ``targets`` are in chain order: all SERVING first (head to tail), then
    LASTSRV, SYNCING, WAITING, OFFLINE."""

    chain_id: ChainId
    version: ChainVersion
    targets: tuple[ChainTarget, ...]

    @property
    def serving(self) -> tuple[ChainTarget, ...]:
        return tuple(t for t in self.targets if t.state is PublicState.SERVING)

    @property
    def head(self) -> ChainTarget | None:
        first = self.targets[0]
        return first if first.state is PublicState.SERVING else None

    @property
    def tail(self) -> ChainTarget | None:
        serving = self.serving
        return serving[-1] if serving else None

    def find(self, target: TargetId) -> ChainTarget | None:
        return next((t for t in self.targets if t.target_id == target), None)

    def writers(self) -> tuple[ChainTarget, ...]:
        """The write path: SERVING targets, then the SYNCING one if there is one."""
        return tuple(
            t for t in self.targets if t.state in (PublicState.SERVING, PublicState.SYNCING)
        )

    def successor(self, target: TargetId) -> ChainTarget | None:
        path = self.writers()
        for mine, following in itertools.pairwise(path):
            if mine.target_id == target:
                return following
        return None

    def predecessor(self, target: TargetId) -> ChainTarget | None:
        path = self.writers()
        for before, mine in itertools.pairwise(path):
            if mine.target_id == target:
                return before
        return None


@dataclass(frozen=True, slots=True)
class Routing:
    """The whole map. ``version`` 0 is the empty map that a process starts with."""

    cluster_id: str = ""
    version: int = 0
    nodes: Mapping[NodeId, Node] = field(default_factory=dict)
    chains: Mapping[ChainId, Chain] = field(default_factory=dict)

    def node(self, node: NodeId) -> Node:
        try:
            return self.nodes[node]
        except KeyError:
            raise FsError(
                Code.UNREACHABLE, f"node {node} is not in routing {self.version}"
            ) from None

    def chain(self, chain: ChainId) -> Chain:
        try:
            return self.chains[chain]
        except KeyError:
            raise FsError(
                Code.ROUTING_STALE, f"chain {chain} is not in routing {self.version}"
            ) from None

    def targets_of(self, node: NodeId) -> list[tuple[Chain, ChainTarget]]:
        """The chains that a node takes part in, with its target in each."""
        return [(c, t) for c in self.chains.values() for t in c.targets if t.node_id == node]

    def of_role(self, role: Role) -> list[Node]:
        return [n for n in self.nodes.values() if n.role is role]
