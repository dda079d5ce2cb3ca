"""A metadata server without a network: its handlers, on an engine and a clock of our own."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Any

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ROOT_INODE, ChainId, ChunkId, ClientId, InodeId, chunk_index, chunk_owner
from fireflyfs.kv.memory import MemoryEngine
from fireflyfs.rpc import cluster_pb2
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from meta_service.handlers import MetaService
from meta_service.inodes import InodeIds, Layouts, ensure_root
from meta_service.operation import Operations
from meta_service.sessions import Clients
from meta_service.statfs import Space

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine
    from fireflyfs.rpc.methods import Rep, Req, Rpc

CHUNK = 1 << 20
START = 1_700_000_000 * 10**9
ROOT = int(ROOT_INODE)
CHAINS = [ChainId(n) for n in range(1, 21)]
_request_ids = itertools.count(1)


class FakeStorage:
    """Chunks by chain; a chain in ``broken`` does not answer."""

    def __init__(self) -> None:
        self.chunks: dict[ChainId, dict[ChunkId, int]] = {}
        self.broken: set[ChainId] = set()
        self.queries = 0

    def put(self, chain: int, chunk: ChunkId, length: int) -> None:
        self.chunks.setdefault(ChainId(chain), {})[chunk] = length

    def count(self) -> int:
        return sum(len(chunks) for chunks in self.chunks.values())

    async def query(
        self, chain: ChainId, owner: InodeId, first_index: int, limit: int
    ) -> tuple[list[tuple[int, int]], bool]:
        self._check(chain)
        self.queries += 1
        found = sorted(
            (chunk_index(chunk), length)
            for chunk, length in self.chunks.get(chain, {}).items()
            if chunk_owner(chunk) == owner and chunk_index(chunk) >= first_index
        )
        return found[:limit], len(found) <= limit

    async def remove(self, chain: ChainId, chunk: ChunkId) -> None:
        self._check(chain)
        self.chunks.get(chain, {}).pop(chunk, None)

    def _check(self, chain: ChainId) -> None:
        if chain in self.broken:
            raise FsError(Code.CHAIN_UNAVAILABLE, f"chain {chain} is broken")


class FakeManager:
    """A channel to a manager that knows one status."""

    def __init__(self) -> None:
        self.status = cluster_pb2.GetStatusReply()
        self.asked = 0

    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, timeout: float) -> Rep:
        self.asked += 1
        return rpc.reply.FromString(self.status.SerializeToString())


class World:
    """One server; several may share an engine. ``now`` moves by hand (nanoseconds)."""

    def __init__(self, engine: Engine | None = None, chains: list[ChainId] | None = None) -> None:
        self.engine = engine or MemoryEngine()
        self.now = START
        self.manager = FakeManager()
        self.chains = CHAINS if chains is None else chains
        operations = Operations(
            self.engine,
            InodeIds(self.engine),
            Layouts(CHUNK, lambda: self.chains),
            clock=lambda: self.now,
        )
        self.clients = Clients(self.engine)
        space = Space(self.manager, "test")
        service = MetaService(self.engine, operations, self.clients, space, lambda: self.now)
        self.handlers = service.handlers()
        self.caller = pb.Caller(uid=1000, gid=100, client_id=7)

    async def start(self) -> World:
        await ensure_root(self.engine, self.now, 0, 0)
        return self

    def tick(self, seconds: float = 1.0) -> int:
        self.now += int(seconds * 10**9)
        return self.now

    async def call(self, rpc: Rpc[Any, Rep], **fields: Any) -> Rep:
        """With a caller of its own request id, unless one is given."""
        if "caller" not in fields and "caller" in rpc.request.DESCRIPTOR.fields_by_name:
            caller = pb.Caller()
            caller.CopyFrom(self.caller)
            caller.request_id = next(_request_ids)
            fields["caller"] = caller
        reply: Rep = await self.handlers[rpc](rpc.request(**fields))
        return reply

    async def fails(self, rpc: Rpc[Any, Any], **fields: Any) -> str:
        """The name of the errno that the call ends with."""
        try:
            await self.call(rpc, **fields)
        except FsError as error:
            return errno.errorcode[error.errno]
        return "OK"

    # Short forms

    async def create(self, name: bytes, parent: int = ROOT, mode: int = 0o644) -> pb.Inode:
        reply = await self.call(MetaRpc.CREATE, parent=parent, name=name, mode=mode, exclusive=True)
        return reply.inode

    async def file(self, name: bytes, parent: int = ROOT, mode: int = 0o644) -> pb.Inode:
        """A file that nobody has open."""
        reply = await self.call(MetaRpc.MKNOD, parent=parent, name=name, mode=mode)
        return reply.inode

    async def mkdir(self, name: bytes, parent: int = ROOT, mode: int = 0o755) -> pb.Inode:
        return (await self.call(MetaRpc.MKDIR, parent=parent, name=name, mode=mode)).inode

    async def symlink(self, name: bytes, target: bytes, parent: int = ROOT) -> pb.Inode:
        return (await self.call(MetaRpc.SYMLINK, parent=parent, name=name, target=target)).inode

    async def link(self, inode: int, name: bytes, parent: int = ROOT) -> pb.Inode:
        return (await self.call(MetaRpc.LINK, inode=inode, parent=parent, name=name)).inode

    async def unlink(self, name: bytes, parent: int = ROOT) -> pb.Inode:
        return (await self.call(MetaRpc.UNLINK, parent=parent, name=name)).inode

    async def rmdir(self, name: bytes, parent: int = ROOT) -> None:
        await self.call(MetaRpc.RMDIR, parent=parent, name=name)

    async def rename(
        self, name: bytes, to: bytes, parent: int = ROOT, into: int = ROOT, flags: int = 0
    ) -> pb.RenameReply:
        return await self.call(
            MetaRpc.RENAME, parent=parent, name=name, new_parent=into, new_name=to, flags=flags
        )

    async def lookup(self, name: bytes, parent: int = ROOT) -> pb.Inode:
        return (await self.call(MetaRpc.LOOKUP, parent=parent, name=name)).inode

    async def stat(self, inode: int = ROOT) -> pb.Inode:
        return (await self.call(MetaRpc.GET_ATTR, inode=inode)).inode

    async def setattr(self, inode: int, **fields: int) -> pb.Inode:
        return (await self.call(MetaRpc.SET_ATTR, inode=inode, **fields)).inode

    async def open(self, inode: int, *, write: bool = False) -> pb.Inode:
        return (await self.call(MetaRpc.OPEN, inode=inode, write=write)).inode

    async def close(self, inode: int, length: int = 0, mtime: int = 0) -> None:
        await self.call(MetaRpc.CLOSE, inode=inode, length=length, mtime=mtime)

    async def names(self, inode: int = ROOT, limit: int = 0) -> list[bytes]:
        found: list[bytes] = []
        while True:
            after = found[-1] if found else b""
            reply = await self.call(MetaRpc.READ_DIR, inode=inode, after=after, limit=limit)
            found += [entry.name for entry in reply.entries]
            if reply.end:
                return found

    async def rows(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """What the store holds under a kind of key."""
        tr = self.engine.transaction()
        found = await tr.get_range(prefix, prefix[:-1] + bytes((prefix[-1] + 1,)))
        tr.cancel()
        return found


def client(number: int) -> ClientId:
    return ClientId(number)
