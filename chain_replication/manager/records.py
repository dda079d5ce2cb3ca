"""What the manager keeps in the transactional store, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fireflyfs.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fireflyfs.ids import ChainId, Generation, NodeId, TargetId
    from fireflyfs.routing import Chain, Node


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A registered process. ``node.generation`` 0: it was never heard."""

    node: Node
    targets: tuple[TargetId, ...] = ()
    former: tuple[Generation, ...] = ()
    """Generations that newer ones took the place of, newest last: never to be accepted again."""


@dataclass(frozen=True, slots=True)
class ChainRecord:
    chain: Chain
    last_change: str
    """Why its version is what it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction: these records replace those of the same ids."""

    nodes: tuple[NodeRecord, ...] = ()
    chains: tuple[ChainRecord, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes or self.chains)


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that is stored. ``version`` is the routing version: +1 with every change."""

    cluster_id: str
    version: int = 0
    nodes: Mapping[NodeId, NodeRecord] = field(default_factory=dict)
    chains: Mapping[ChainId, ChainRecord] = field(default_factory=dict)

    def applied(self, change: Change) -> Table:
        return replace(
            self,
            version=self.version + 1,
            nodes={**self.nodes, **{n.node.node_id: n for n in change.nodes}},
            chains={**self.chains, **{c.chain.chain_id: c for c in change.chains}},
        )

    def routing(self) -> Routing:
        """What the rest of the cluster sees of it."""
        return Routing(
            self.cluster_id,
            self.version,
            {i: record.node for i, record in self.nodes.items()},
            {i: record.chain for i, record in self.chains.items()},
        )
