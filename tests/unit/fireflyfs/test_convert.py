from __future__ import annotations

import pytest

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from fireflyfs.routing import Chain, ChainTarget, LocalState, Node, PublicState, Role, Routing
from fireflyfs.rpc import cluster_pb2, convert, meta_pb2
from fireflyfs.rpc.methods import ClusterRpc, MetaRpc, Rpc


def routing() -> Routing:
    nodes = [
        Node(NodeId(n), role, f"n{n}", Generation(2**62 + n), ("unix:///a", "tcp://h:1"), n > 1)
        for n, role in ((1, Role.STORAGE), (2, Role.META))
    ]
    targets = tuple(ChainTarget(TargetId(65536 + s), NodeId(1), s) for s in PublicState)
    chain = Chain(ChainId(7), ChainVersion(3), targets)
    return Routing("c", 9, {n.node_id: n for n in nodes}, {chain.chain_id: chain})


def test_routing_comes_back_as_it_was() -> None:
    for table in (routing(), Routing()):
        wire = convert.routing_to_proto(table).SerializeToString()
        assert convert.routing_from_proto(cluster_pb2.RoutingTable.FromString(wire)) == table


def test_local_states_come_back() -> None:
    for state in LocalState:
        assert convert.local_state_from_proto(convert.local_state_to_proto(state)) is state


def test_what_no_manager_publishes_is_malformed() -> None:
    good = convert.routing_to_proto(routing())
    for spoil in ("role", "state", "empty", "long"):
        bad = cluster_pb2.RoutingTable.FromString(good.SerializeToString())
        if spoil == "role":
            bad.nodes[0].ClearField("role")
        elif spoil == "state":
            bad.chains[0].targets[0].ClearField("state")
        elif spoil == "empty":
            del bad.chains[0].targets[:]
        else:
            bad.chains[0].targets.append(bad.chains[0].targets[0])
        with pytest.raises(FsError) as caught:
            convert.routing_from_proto(bad)
        assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    ("calls", "module", "service"),
    [(MetaRpc, meta_pb2, "Meta"), (ClusterRpc, cluster_pb2, "Cluster")],
)
def test_every_call_of_the_services_is_listed_with_its_types(
    calls: type, module: object, service: str
) -> None:
    descriptor = getattr(module, "DESCRIPTOR").services_by_name[service]  # noqa: B009
    declared = {
        f"/{descriptor.full_name}/{m.name}": (m.input_type.name, m.output_type.name)
        for m in descriptor.methods
    }
    listed = [rpc for rpc in vars(calls).values() if isinstance(rpc, Rpc)]
    assert {r.name: (r.request.__name__, r.reply.__name__) for r in listed} == declared
