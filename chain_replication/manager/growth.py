"""How a cluster grows: nodes register, chains are laid over their targets. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chain_replication.manager.records import ChainRecord, Change, NodeRecord
from chain_replication.placement import place
from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChainVersion, Generation, NodeId, target_id
from fireflyfs.routing import Chain, ChainTarget, Node, PublicState, Role

if TYPE_CHECKING:
    from chain_replication.manager.records import Table


def register(table: Table, role: Role, name: str, targets: int) -> tuple[NodeRecord, Change]:
    """The record of a node, made or given more targets if need be; the change is empty if not.

    A name in a role is one node for ever, and targets are never taken away: a node that asks for
    fewer than it had is given them all.

    Errors:
        FsError: ``INVALID`` for a name or a number that no node can have, or too many nodes.
    """
    _check_registration(role, name, targets)
    known = next(
        (r for r in table.nodes.values() if (r.node.role, r.node.name) == (role, name)), None
    )
    if known is None:
        if len(table.nodes) >= limits.MAX_NODES:
            raise FsError(Code.INVALID, f"a cluster has at most {limits.MAX_NODES} nodes")
        node_id = NodeId(max(table.nodes, default=0) + 1)
        known = NodeRecord(Node(node_id, role, name, Generation(0), (), alive=False))
    elif len(known.targets) >= targets:
        return known, Change()
    owned = tuple(target_id(known.node.node_id, slot) for slot in range(targets))
    record = replace(known, targets=owned)
    return record, Change(nodes=(record,))


def _check_registration(role: Role, name: str, targets: int) -> None:
    if not 1 <= len(name.encode()) <= limits.MAX_NAME or not name.isprintable():
        raise FsError(
            Code.INVALID, f"a node's name has 1 to {limits.MAX_NAME} bytes, all printable"
        )
    most = limits.MAX_NODE_TARGETS if role is Role.STORAGE else 0
    if not 0 <= targets <= most:
        raise FsError(Code.INVALID, f"a {role.name} node has 0 to {most} targets, not {targets}")


def create_chains(table: Table, replicas: int) -> Change:
    """Chains over all targets that are on none, all serving (they are empty); maybe none.

    Errors:
        FsError: ``INVALID`` if there are free targets, but on fewer nodes than ``replicas``.
    """
    taken = {t.target_id for record in table.chains.values() for t in record.chain.targets}
    free = {
        node_id: [t for t in record.targets if t not in taken]
        for node_id, record in table.nodes.items()
    }
    if not any(free.values()):
        return Change()
    first = max(table.chains, default=0) + 1
    return Change(
        chains=tuple(
            ChainRecord(
                Chain(
                    ChainId(number),
                    ChainVersion(1),
                    tuple(ChainTarget(t, node, PublicState.SERVING) for node, t in members),
                ),
                "created",
            )
            for number, members in enumerate(place(free, replicas), first)
        )
    )
