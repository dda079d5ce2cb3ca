"""The manager's face: every request is checked here, handed to the manager, and answered."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import trio

from chain_replication.manager.state import Beat, Report
from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import Generation, NodeId, TargetId
from fireflyfs.net.address import Address
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc import convert
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chain_replication.manager.loop import Manager
    from chain_replication.manager.records import ChainRecord, NodeRecord
    from fireflyfs.routing import ChainTarget, Routing

_MAX_NUMBER = (1 << 63) - 1
_MAX_REASON = 500


class ClusterService:
    """The handlers of ``cluster.proto``. Requests that come before ``open`` wait for it."""

    def __init__(self, cluster_id: str) -> None:
        self._cluster_id = cluster_id
        self._manager: Manager | None = None
        self._opened = trio.Event()
        self._table: tuple[int, pb.RoutingTable] | None = None

    def open(self, manager: Manager) -> None:
        self._manager = manager
        self._opened.set()

    def control_plane(self) -> ControlPlane:
        return ControlPlane(
            {
                ClusterRpc.HEARTBEAT: self._guarded(self._heartbeat),
                ClusterRpc.GET_ROUTING: self._guarded(self._get_routing),
                ClusterRpc.REGISTER: self._guarded(self._register),
                ClusterRpc.CREATE_CHAINS: self._guarded(self._create_chains),
                ClusterRpc.GET_STATUS: self._guarded(self._get_status),
            }
        )

    def _guarded(
        self, handler: Callable[[Manager, Any], Awaitable[Any]]
    ) -> Callable[[Any], Awaitable[Any]]:
        @functools.wraps(handler)
        async def guarded(request: Any) -> Any:
            if request.cluster_id != self._cluster_id:
                raise FsError(
                    Code.WRONG_CLUSTER,
                    f"this is the manager of cluster {self._cluster_id!r}, "
                    f"not of {request.cluster_id[: limits.MAX_NAME]!r}",
                )
            await self._opened.wait()
            assert self._manager is not None
            return await handler(self._manager, request)

        return guarded

    async def _heartbeat(self, manager: Manager, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        lease = await manager.heartbeat(_beat(request))
        return pb.HeartbeatReply(routing_version=manager.routing.version, lease_seconds=lease)

    async def _get_routing(
        self, manager: Manager, request: pb.GetRoutingRequest
    ) -> pb.GetRoutingReply:
        if not request.wait_seconds >= 0:  # NaN, too
            raise FsError(Code.INVALID, f"cannot wait {request.wait_seconds} seconds")
        routing = await manager.routing_after(request.known_version, request.wait_seconds)
        if routing is None:
            return pb.GetRoutingReply()
        return pb.GetRoutingReply(routing=self._routing_table(routing))

    def _routing_table(self, routing: Routing) -> pb.RoutingTable:
        """Converted once for each version, however many ask."""
        if self._table is None or self._table[0] != routing.version:
            self._table = (routing.version, convert.routing_to_proto(routing))
        return self._table[1]

    async def _register(self, manager: Manager, request: pb.RegisterRequest) -> pb.RegisterReply:
        role = convert.role_from_proto(request.role)
        record = await manager.register(role, request.name, request.targets)
        return pb.RegisterReply(
            node_id=record.node.node_id,
            target_ids=record.targets,
            was_heard=record.node.generation != 0,
        )

    async def _create_chains(
        self, manager: Manager, request: pb.CreateChainsRequest
    ) -> pb.CreateChainsReply:
        return pb.CreateChainsReply(chain_ids=await manager.create_chains(request.replicas))

    async def _get_status(self, manager: Manager, _: pb.GetStatusRequest) -> pb.GetStatusReply:
        table = manager.state.table
        return pb.GetStatusReply(
            routing_version=table.version,
            nodes=[_node_status(manager, record) for record in table.nodes.values()],
            chains=[_chain_status(manager, record) for record in table.chains.values()],
        )


def _node_status(manager: Manager, record: NodeRecord) -> pb.NodeStatus:
    silence = manager.state.silence(record.node.node_id, trio.current_time())
    return pb.NodeStatus(
        node=convert.node_to_proto(record.node), seconds_since_heartbeat=round(silence, 3)
    )


def _chain_status(manager: Manager, record: ChainRecord) -> pb.ChainStatus:
    return pb.ChainStatus(
        chain_id=record.chain.chain_id,
        version=record.chain.version,
        targets=[_target_status(manager, target) for target in record.chain.targets],
        last_change=record.last_change,
    )


def _target_status(manager: Manager, target: ChainTarget) -> pb.TargetStatus:
    status = pb.TargetStatus(target=convert.target_to_proto(target))
    report = manager.state.report(target)
    if report is not None:
        status.report.CopyFrom(
            pb.TargetReport(
                target_id=target.target_id,
                state=convert.local_state_to_proto(report.state),
                chain_version=report.chain_version,
                used_bytes=report.used_bytes,
                capacity_bytes=report.capacity_bytes,
                chunks=report.chunks,
                reason=report.reason,
                sync_remaining=report.sync_remaining,
                disk=report.disk,
            )
        )
    return status


def _beat(request: pb.HeartbeatRequest) -> Beat:
    """Checked in form; whether it fits the cluster's records is the state's to say."""
    if not 0 < request.generation <= _MAX_NUMBER:
        raise FsError(Code.INVALID, "a generation is a number from 1 to 2^63-1")
    if len(request.addresses) > limits.MAX_NODE_ADDRESSES:
        raise FsError(Code.INVALID, f"a node has at most {limits.MAX_NODE_ADDRESSES} addresses")
    if len(request.targets) > limits.MAX_NODE_TARGETS:
        raise FsError(Code.INVALID, f"a node has at most {limits.MAX_NODE_TARGETS} targets")
    reports = {TargetId(t.target_id): _report(t) for t in request.targets}
    if len(reports) != len(request.targets):
        raise FsError(Code.INVALID, "a heartbeat reports the same target twice")
    return Beat(
        NodeId(request.node_id),
        Generation(request.generation),
        convert.role_from_proto(request.role),
        request.name,
        tuple(str(Address.parse(address)) for address in request.addresses),
        reports,
    )


def _report(report: pb.TargetReport) -> Report:
    numbers = (
        report.chain_version,
        report.used_bytes,
        report.capacity_bytes,
        report.chunks,
        report.sync_remaining,
    )
    if max(numbers) > _MAX_NUMBER:
        raise FsError(Code.INVALID, f"target {report.target_id}: a number beyond 2^63-1")
    return Report(
        convert.local_state_from_proto(report.state),
        report.chain_version,
        report.used_bytes,
        report.capacity_bytes,
        report.chunks,
        report.reason[:_MAX_REASON],
        report.sync_remaining,
        report.disk[:_MAX_REASON],
    )
