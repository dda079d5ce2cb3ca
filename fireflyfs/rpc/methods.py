"""Every control-plane call: its full name and the types of its request and reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from fireflyfs.rpc import cluster_pb2, meta_pb2

Req = TypeVar("Req", bound=Message)
Rep = TypeVar("Rep", bound=Message)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Req, Rep]):
    name: str
    """As gRPC writes it: ``/package.Service/Method``."""
    request: type[Req]
    reply: type[Rep]


class MetaRpc:
    """``proto/fireflyfs/rpc/meta.proto``, service Meta."""

    LOOKUP = Rpc("/fireflyfs.rpc.Meta/Lookup", meta_pb2.LookupRequest, meta_pb2.InodeReply)
    GET_ATTR = Rpc("/fireflyfs.rpc.Meta/GetAttr", meta_pb2.GetAttrRequest, meta_pb2.InodeReply)
    SET_ATTR = Rpc("/fireflyfs.rpc.Meta/SetAttr", meta_pb2.SetAttrRequest, meta_pb2.InodeReply)
    CREATE = Rpc("/fireflyfs.rpc.Meta/Create", meta_pb2.CreateRequest, meta_pb2.InodeReply)
    MKNOD = Rpc("/fireflyfs.rpc.Meta/Mknod", meta_pb2.MknodRequest, meta_pb2.InodeReply)
    MKDIR = Rpc("/fireflyfs.rpc.Meta/Mkdir", meta_pb2.MkdirRequest, meta_pb2.InodeReply)
    SYMLINK = Rpc("/fireflyfs.rpc.Meta/Symlink", meta_pb2.SymlinkRequest, meta_pb2.InodeReply)
    LINK = Rpc("/fireflyfs.rpc.Meta/Link", meta_pb2.LinkRequest, meta_pb2.InodeReply)
    UNLINK = Rpc("/fireflyfs.rpc.Meta/Unlink", meta_pb2.UnlinkRequest, meta_pb2.UnlinkReply)
    RMDIR = Rpc("/fireflyfs.rpc.Meta/Rmdir", meta_pb2.RmdirRequest, meta_pb2.Empty)
    RENAME = Rpc("/fireflyfs.rpc.Meta/Rename", meta_pb2.RenameRequest, meta_pb2.RenameReply)
    OPEN = Rpc("/fireflyfs.rpc.Meta/Open", meta_pb2.OpenRequest, meta_pb2.InodeReply)
    CLOSE = Rpc("/fireflyfs.rpc.Meta/Close", meta_pb2.CloseRequest, meta_pb2.Empty)
    REPORT = Rpc("/fireflyfs.rpc.Meta/Report", meta_pb2.ReportRequest, meta_pb2.InodeReply)
    READ_DIR = Rpc("/fireflyfs.rpc.Meta/ReadDir", meta_pb2.ReadDirRequest, meta_pb2.ReadDirReply)
    GET_XATTR = Rpc("/fireflyfs.rpc.Meta/GetXattr", meta_pb2.GetXattrRequest, meta_pb2.XattrReply)
    SET_XATTR = Rpc("/fireflyfs.rpc.Meta/SetXattr", meta_pb2.SetXattrRequest, meta_pb2.Empty)
    LIST_XATTR = Rpc(
        "/fireflyfs.rpc.Meta/ListXattr", meta_pb2.ListXattrRequest, meta_pb2.ListXattrReply
    )
    REMOVE_XATTR = Rpc(
        "/fireflyfs.rpc.Meta/RemoveXattr", meta_pb2.RemoveXattrRequest, meta_pb2.Empty
    )
    STAT_FS = Rpc("/fireflyfs.rpc.Meta/StatFs", meta_pb2.Empty, meta_pb2.StatFsReply)
    FLUSH = Rpc("/fireflyfs.rpc.Meta/Flush", meta_pb2.Empty, meta_pb2.Empty)
    KEEP_ALIVE = Rpc("/fireflyfs.rpc.Meta/KeepAlive", meta_pb2.KeepAliveRequest, meta_pb2.Empty)


class ClusterRpc:
    """``proto/fireflyfs/rpc/cluster.proto``, service Cluster."""

    HEARTBEAT = Rpc(
        "/fireflyfs.rpc.Cluster/Heartbeat", cluster_pb2.HeartbeatRequest, cluster_pb2.HeartbeatReply
    )
    GET_ROUTING = Rpc(
        "/fireflyfs.rpc.Cluster/GetRouting",
        cluster_pb2.GetRoutingRequest,
        cluster_pb2.GetRoutingReply,
    )
    REGISTER = Rpc(
        "/fireflyfs.rpc.Cluster/Register", cluster_pb2.RegisterRequest, cluster_pb2.RegisterReply
    )
    CREATE_CHAINS = Rpc(
        "/fireflyfs.rpc.Cluster/CreateChains",
        cluster_pb2.CreateChainsRequest,
        cluster_pb2.CreateChainsReply,
    )
    GET_STATUS = Rpc(
        "/fireflyfs.rpc.Cluster/GetStatus", cluster_pb2.GetStatusRequest, cluster_pb2.GetStatusReply
    )
