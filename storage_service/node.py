"""Who this node is: its directory's ``node.json``, and the manager's register."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import NodeId, TargetId
from fireflyfs.limits import HEARTBEAT_INTERVAL
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.config import StorageConfig
    from fireflyfs.rpc.channel import Channel

CALL_SECONDS = 2.0
REGISTER_SECONDS = 60.0
FILE_NAME = "node.json"


@dataclass(frozen=True)
class NodeRecord:
    cluster_id: str
    name: str
    node_id: int
    target_ids: tuple[int, ...]


def load(directory: Path) -> NodeRecord | None:
    """What the directory says whose it is; None for a new one. Raises FsError(CONFIG)."""
    path = directory / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return NodeRecord(
            str(data["cluster_id"]),
            str(data["name"]),
            int(data["node_id"]),
            tuple(int(target) for target in data["target_ids"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FsError(Code.CONFIG, f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise FsError(Code.CONFIG, f"{path} is damaged: it is not the record of a node") from None


def store(directory: Path, record: NodeRecord) -> None:
    """Atomically and durably. Raises FsError(CONFIG)."""
    path = directory / FILE_NAME
    temporary = path.with_suffix(".new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        parent = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise FsError(Code.CONFIG, f"{path}: {error.strerror}") from None


def recall(directory: Path, config: StorageConfig) -> NodeRecord | None:
    """Whose the directory is; it is made if it is not there, and then nobody's.

    Raises FsError(CONFIG) for the directory of another cluster or node.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FsError(Code.CONFIG, f"{directory}: {error.strerror}") from None
    record = load(directory)
    if record is None:
        return None
    for what, is_, expected in (
        ("cluster", record.cluster_id, config.cluster.cluster_id),
        ("node", record.name, config.name),
    ):
        if is_ != expected:
            raise FsError(Code.CONFIG, f"{directory} belongs to {what} {is_!r}, not {expected!r}")
    return record


async def establish(
    directory: Path, known: NodeRecord | None, config: StorageConfig, manager: Channel
) -> tuple[NodeRecord, frozenset[TargetId]]:
    """Register with the manager and put down who we are.

    Also returns the targets that were here before, so that one that is empty now is known to have
    lost its content.

    Raises FsError: CONFIG (the directory is of a node that the manager does not know); what the
    manager answered last, after ``REGISTER_SECONDS``.
    """
    reply = await _register(config, manager)
    record = NodeRecord(
        config.cluster.cluster_id, config.name, reply.node_id, tuple(reply.target_ids)
    )
    if known is not None and (known.node_id, known.target_ids) != (
        record.node_id,
        record.target_ids[: len(known.target_ids)],
    ):
        raise FsError(
            Code.CONFIG,
            f"{directory} is of node {known.node_id}, but the manager knows {config.name!r} as "
            f"node {record.node_id}: its state was lost or is of another cluster",
        )
    if record != known:
        store(directory, record)
    before = (record if known is None else known).target_ids if reply.was_heard else ()
    return record, frozenset(TargetId(target) for target in before)


async def _register(config: StorageConfig, manager: Channel) -> pb.RegisterReply:
    request = pb.RegisterRequest(
        cluster_id=config.cluster.cluster_id,
        role=pb.STORAGE,
        name=config.name,
        targets=config.targets,
    )
    until = trio.current_time() + REGISTER_SECONDS
    while True:
        try:
            return await manager.call(ClusterRpc.REGISTER, request, timeout=CALL_SECONDS)
        except FsError as error:
            if not error.retry or trio.current_time() > until:
                raise FsError(error.code, f"cannot register as {config.name!r}") from error
            await trio.sleep(HEARTBEAT_INTERVAL / 4)


def ids(record: NodeRecord) -> tuple[NodeId, list[TargetId]]:
    return NodeId(record.node_id), [TargetId(target) for target in record.target_ids]
