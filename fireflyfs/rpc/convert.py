"""Routing to and from its protobuf form, checked where it comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from fireflyfs.limits import MAX_REPLICAS
from fireflyfs.routing import (
    Chain,
    ChainTarget,
    LocalState,
    Node,
    PublicState,
    Role,
    Routing,
)
from fireflyfs.rpc import cluster_pb2

if TYPE_CHECKING:
    import enum

_State = TypeVar("_State", bound="enum.IntEnum")


def routing_to_proto(routing: Routing) -> cluster_pb2.RoutingTable:
    return cluster_pb2.RoutingTable(
        cluster_id=routing.cluster_id,
        version=routing.version,
        nodes=[node_to_proto(node) for node in routing.nodes.values()],
        chains=[chain_to_proto(chain) for chain in routing.chains.values()],
    )


def routing_from_proto(table: cluster_pb2.RoutingTable) -> Routing:
    """Raises FsError(MALFORMED) for a table that no manager may publish."""
    nodes = [node_from_proto(node) for node in table.nodes]
    chains = [chain_from_proto(chain) for chain in table.chains]
    return Routing(
        cluster_id=table.cluster_id,
        version=table.version,
        nodes={node.node_id: node for node in nodes},
        chains={chain.chain_id: chain for chain in chains},
    )


def node_to_proto(node: Node) -> cluster_pb2.NodeInfo:
    return cluster_pb2.NodeInfo(
        node_id=node.node_id,
        role=role_to_proto(node.role),
        name=node.name,
        generation=node.generation,
        addresses=node.addresses,
        alive=node.alive,
    )


def node_from_proto(info: cluster_pb2.NodeInfo) -> Node:
    return Node(
        node_id=NodeId(info.node_id),
        role=role_from_proto(info.role),
        name=info.name,
        generation=Generation(info.generation),
        addresses=tuple(info.addresses),
        alive=info.alive,
    )


def chain_to_proto(chain: Chain) -> cluster_pb2.ChainInfo:
    return cluster_pb2.ChainInfo(
        chain_id=chain.chain_id,
        version=chain.version,
        targets=[target_to_proto(target) for target in chain.targets],
    )


def chain_from_proto(info: cluster_pb2.ChainInfo) -> Chain:
    targets = tuple(target_from_proto(target) for target in info.targets)
    if not 0 < len(targets) <= MAX_REPLICAS:
        raise FsError(Code.MALFORMED, f"chain {info.chain_id} has {len(targets)} targets")
    return Chain(ChainId(info.chain_id), ChainVersion(info.version), targets)


def target_to_proto(target: ChainTarget) -> cluster_pb2.ChainTargetInfo:
    return cluster_pb2.ChainTargetInfo(
        target_id=target.target_id,
        node_id=target.node_id,
        state=cast("cluster_pb2.TargetState", int(target.state)),
    )


def target_from_proto(info: cluster_pb2.ChainTargetInfo) -> ChainTarget:
    state = _known(PublicState, info.state)
    return ChainTarget(TargetId(info.target_id), NodeId(info.node_id), state)


def role_to_proto(role: Role) -> cluster_pb2.NodeRole:
    return cast("cluster_pb2.NodeRole", int(role))


def role_from_proto(role: int) -> Role:
    """Raises FsError(MALFORMED) for an unknown number."""
    return _known(Role, role)


def local_state_to_proto(state: LocalState) -> cluster_pb2.TargetLocalState:
    return cast("cluster_pb2.TargetLocalState", int(state))


def local_state_from_proto(state: int) -> LocalState:
    """Raises FsError(MALFORMED) for an unknown number."""
    return _known(LocalState, state)


def _known(kind: type[_State], number: int) -> _State:
    try:
        return kind(number)
    except ValueError:
        raise FsError(Code.MALFORMED, f"{number} is not a {kind.__name__}") from None
