"""A mount's peers without processes: the real metadata operations on the memory store, and chunks
in a dictionary."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

from fireflyfs.client.meta import MetaClient
from fireflyfs.client.storage import StorageClient
from fireflyfs.ids import ChainId
from fireflyfs.kv.memory import MemoryEngine
from fireflyfs.limits import MIN_CHUNK_SIZE
from fuse_client.operations import MountOperations
from meta_service.handlers import MetaService
from meta_service.inodes import InodeIds, Layouts, ensure_root
from meta_service.operation import Operations
from meta_service.sessions import Clients
from tests.unit.fireflyfs.client.fakes import FakePeers, cluster, routing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fireflyfs.client.cluster import Cluster
    from fireflyfs.errors import FsError
    from fireflyfs.rpc.methods import Rep, Req, Rpc
    from meta_service.statfs import Space

CHAINS = [ChainId(1), ChainId(2), ChainId(3)]


class FakeSpace:
    async def measure(self) -> tuple[int, int]:
        return 1 << 40, 1 << 39


class LocalMeta(MetaClient):
    """Calls the service's handlers without a wire, and keeps a list of what was called."""

    def __init__(self, cluster: Cluster, engine: MemoryEngine) -> None:
        super().__init__(cluster)
        layouts = Layouts(MIN_CHUNK_SIZE, lambda: CHAINS)
        operations = Operations(engine, InodeIds(engine), layouts)
        service = MetaService(engine, operations, Clients(engine), cast("Space", FakeSpace()))
        self._handlers = service.handlers()
        self.calls: list[tuple[str, Any]] = []
        self.failures: dict[str, list[FsError]] = defaultdict(list)
        """Raised instead of calling, by the method's name."""

    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, deadline: float = 30.0) -> Rep:
        self._sign(request)
        name = rpc.name.rpartition("/")[2]
        self.calls.append((name, request))
        if self.failures[name]:
            raise self.failures[name].pop(0)
        return cast("Rep", await self._handlers[rpc](request))

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class Bench:
    """A mount's operations and what they stand on."""

    def __init__(self, engine: MemoryEngine, peers: FakePeers) -> None:
        self.peers = peers
        self.engine = engine
        view = cluster(peers, routing(1, [1, 2, 3], chains=CHAINS))
        self.meta = LocalMeta(view, engine)
        self.operations = MountOperations(self.meta, StorageClient(view))


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    engine = MemoryEngine()
    await ensure_root(engine, time.time_ns(), 0, 0)
    try:
        yield Bench(engine, FakePeers())
    finally:
        await engine.close()
