"""The control plane of a metadata server: which operation answers which call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fireflyfs.clock import file_time_ns
from fireflyfs.ids import ClientId
from fireflyfs.kv.retry import transact
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from meta_service import statfs
from meta_service.names import check_client, check_place
from meta_service.ops.create import create, mknod, symlink
from meta_service.ops.link import link
from meta_service.ops.listing import read_dir
from meta_service.ops.lookup import get_attr, lookup
from meta_service.ops.mkdir import mkdir
from meta_service.ops.remove import rmdir, unlink
from meta_service.ops.rename import rename
from meta_service.ops.session import close, open_, report
from meta_service.ops.setattr import set_attr
from meta_service.ops.xattr import get_xattr, list_xattr, remove_xattr, set_xattr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.base import Engine
    from fireflyfs.rpc.control import Handlers
    from fireflyfs.rpc.methods import Rpc
    from meta_service.operation import Operations
    from meta_service.sessions import Clients
    from meta_service.statfs import Space

Table = dict["Rpc[Any, Any]", "Callable[..., Awaitable[Any]]"]

REPEATABLE: Table = {
    MetaRpc.LOOKUP: lookup,
    MetaRpc.GET_ATTR: get_attr,
    MetaRpc.READ_DIR: read_dir,
    MetaRpc.GET_XATTR: get_xattr,
    MetaRpc.LIST_XATTR: list_xattr,
}
"""Run as often as a client likes."""
ONCE: Table = {
    MetaRpc.SET_ATTR: set_attr,
    MetaRpc.LINK: link,
    MetaRpc.UNLINK: unlink,
    MetaRpc.RMDIR: rmdir,
    MetaRpc.RENAME: rename,
    MetaRpc.SET_XATTR: set_xattr,
    MetaRpc.REMOVE_XATTR: remove_xattr,
    MetaRpc.CLOSE: close,
}
"""Run once for each request id: a late repeat must not undo what the client has done since. It
would close a file that was opened again."""
CREATING: Table = {
    MetaRpc.MKNOD: mknod,
    MetaRpc.MKDIR: mkdir,
    MetaRpc.SYMLINK: symlink,
}
"""Run once for each request id, with a new inode number."""


class MetaService:
    """All calls of ``service Meta``; every one raises FsError to refuse."""

    def __init__(
        self,
        engine: Engine,
        operations: Operations,
        clients: Clients,
        space: Space,
        clock: Callable[[], int] = file_time_ns,
    ) -> None:
        self._engine = engine
        self._operations = operations
        self._clients = clients
        self._space = space
        self._clock = clock

    def handlers(self) -> Handlers:
        """For ``fireflyfs.rpc.control.ControlPlane``."""
        run, run_once = self._operations.run, self._operations.run_once
        return {
            **{rpc: partial(run, op) for rpc, op in REPEATABLE.items()},
            **{rpc: partial(run_once, rpc, op) for rpc, op in ONCE.items()},
            **{rpc: partial(run_once, rpc, op, creates=True) for rpc, op in CREATING.items()},
            MetaRpc.CREATE: self.create,
            MetaRpc.OPEN: self.open,
            MetaRpc.REPORT: self.report,
            MetaRpc.STAT_FS: self.stat_fs,
            MetaRpc.FLUSH: self.flush,
            MetaRpc.KEEP_ALIVE: self.keep_alive,
        }

    async def create(self, request: pb.CreateRequest) -> pb.InodeReply:
        await self._heard(request.caller)
        return await self._operations.run_once(MetaRpc.CREATE, create, request, creates=True)

    async def open(self, request: pb.OpenRequest) -> pb.InodeReply:
        await self._heard(request.caller)
        return await self._operations.run(open_, request)

    async def report(self, request: pb.ReportRequest) -> pb.InodeReply:
        """Once, as a late repeat would grow a file that was truncated since."""
        reply = await self._operations.run_once(MetaRpc.REPORT, report, request)
        if request.durable:
            await self._engine.flush()
        return reply

    async def stat_fs(self, request: pb.Empty) -> pb.StatFsReply:
        capacity, available = await self._space.measure()
        inodes = await transact(self._engine, statfs.count_inodes)
        return pb.StatFsReply(capacity=capacity, available=available, inodes=max(inodes, 0))

    async def flush(self, request: pb.Empty) -> pb.Empty:
        await self._engine.flush()
        return pb.Empty()

    async def keep_alive(self, request: pb.KeepAliveRequest) -> pb.Empty:
        check_client(request.client_id)
        check_place(request.host, request.mountpoint)
        client = ClientId(request.client_id)
        await self._clients.keep_alive(client, request.host, request.mountpoint, self._clock())
        return pb.Empty()

    async def _heard(self, caller: pb.Caller) -> None:
        """Before a session is made: its client must be known, or nobody would ever prune it."""
        check_client(caller.client_id)
        await self._clients.heard(ClientId(caller.client_id), self._clock())
