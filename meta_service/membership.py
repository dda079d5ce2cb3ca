"""Being a member of the cluster: a name, a node id, and a heartbeat every second."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import HEARTBEAT_INTERVAL
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireflyfs.ids import Generation
    from fireflyfs.rpc.channel import Channel

logger = logging.getLogger(__name__)

TIMEOUT = 2.0
REGISTER_DEADLINE = 30.0


async def register(manager: Channel, cluster_id: str, name: str) -> int:
    """The node id of the metadata server ``name``, the same for ever.

    Raises:
        FsError: what the manager answered last, after ``REGISTER_DEADLINE`` seconds.
    """
    request = pb.RegisterRequest(cluster_id=cluster_id, role=pb.META, name=name)
    until = trio.current_time() + REGISTER_DEADLINE
    while True:
        try:
            reply = await manager.call(ClusterRpc.REGISTER, request, timeout=TIMEOUT)
        except FsError as error:
            if not error.retry or trio.current_time() > until:
                raise FsError(error.code, f"cannot register as {name!r}") from error
            await trio.sleep(HEARTBEAT_INTERVAL / 4)
        else:
            return reply.node_id


async def heartbeat(
    manager: Channel,
    request: pb.HeartbeatRequest,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Say that we are here, for ever; ``started`` after the first try, whether it was heard or not.

    Raises:
        FsError: ``WRONG_CLUSTER``; ``SUPERSEDED`` when the manager takes another process for a
        later start of this server: it will not hear this one again.
    """
    heard = True
    while True:
        beat = trio.current_time()
        try:
            await manager.call(ClusterRpc.HEARTBEAT, request, timeout=TIMEOUT)
            heard = True
        except FsError as error:
            if error.code in (Code.WRONG_CLUSTER, Code.SUPERSEDED):
                raise
            if heard:
                logger.warning("the manager does not hear us: %s", error)
            heard = False
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep_until(beat + HEARTBEAT_INTERVAL)


def beat_of(
    cluster_id: str, node_id: int, generation: Generation, name: str, addresses: Sequence[str]
) -> pb.HeartbeatRequest:
    return pb.HeartbeatRequest(
        cluster_id=cluster_id,
        node_id=node_id,
        generation=generation,
        role=pb.META,
        name=name,
        addresses=addresses,
    )
