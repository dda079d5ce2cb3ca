"""Chunks of removed files: taken away in the background, after the removal was committed.

A garbage record is the only thing left of its inode, so nothing can open it again. The work keeps
no state: a chunk that is gone is not listed again, and the record goes last. So it goes on after
any crash, and two servers that work on one record only waste effort.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from fireflyfs.errors import FsError
from fireflyfs.ids import ChainId, InodeId, chunk_id
from fireflyfs.kv import keys
from fireflyfs.kv.retry import transact
from meta_service import rows
from meta_service.schema import GarbageRow, decode

if TYPE_CHECKING:
    from fireflyfs.ids import ChunkId
    from fireflyfs.kv.base import Engine, Transaction

logger = logging.getLogger(__name__)

PAGE = 64
"""Records worked on in one step."""
WORKERS = 8
CHUNK_PAGE = 256
CHUNKS_PER_SECOND = 4000
"""At most this many removals: clients' writes go through the same chains."""


class ChunkStorage(Protocol):
    """What is needed of ``fireflyfs.client.storage.StorageClient``."""

    async def query(
        self, chain: ChainId, owner: InodeId, first_index: int, limit: int
    ) -> tuple[list[tuple[int, int]], bool]:
        """(index, length) of chunks from ``first_index`` on, and whether these were the last."""

    async def remove(self, chain: ChainId, chunk: ChunkId) -> None: ...


class Collector:
    """Works off the garbage of one store."""

    def __init__(self, engine: Engine, storage: ChunkStorage) -> None:
        self._engine = engine
        self._storage = storage
        self._workers = trio.CapacityLimiter(WORKERS)
        self._free_at = 0.0
        self._failing: set[int] = set()
        """Chains that failed in this pass: not asked again for every file on them."""

    async def collect(self) -> int:
        """One pass over all garbage; how many files are gone for good.

        What fails (a chain that does not serve) is logged and stays for the next pass.

        Raises:
            FsError: those of the store.
        """
        begin, end = keys.garbage_range()
        self._failing.clear()
        collected = 0
        while page := await transact(self._engine, partial(_page, begin=begin, end=end)):
            done: list[InodeId] = []
            async with trio.open_nursery() as nursery:
                for inode, row in page:
                    await self._workers.acquire_on_behalf_of(inode)
                    nursery.start_soon(self._collect_one, inode, row, done)
            await transact(self._engine, partial(_finish, inodes=done))
            collected += len(done)
            begin = keys.after(keys.garbage_key(page[-1][0]))
        return collected

    async def _collect_one(self, inode: InodeId, row: GarbageRow, done: list[InodeId]) -> None:
        try:
            if await transact(self._engine, partial(rows.is_open, inode=inode)):
                logger.error("inode %d is garbage although it is open", inode)
                return
            for chain in row.chains:
                if chain in self._failing:
                    return
                await self._remove_chunks(ChainId(chain), inode)
            done.append(inode)
        except FsError as error:
            logger.warning("garbage of inode %d has to wait: %s", inode, error)
        finally:
            self._workers.release_on_behalf_of(inode)

    async def _remove_chunks(self, chain: ChainId, inode: InodeId) -> None:
        first, end = 0, False
        try:
            while not end:
                chunks, end = await self._storage.query(chain, inode, first, CHUNK_PAGE)
                for index, _ in chunks:
                    await self._pace()
                    await self._storage.remove(chain, chunk_id(inode, index))
                    first = index + 1
                end = end or not chunks
        except FsError:
            self._failing.add(chain)
            raise

    async def _pace(self) -> None:
        """Spread the removals of all workers evenly."""
        now = trio.current_time()
        self._free_at = max(self._free_at, now) + 1 / CHUNKS_PER_SECOND
        await trio.sleep_until(self._free_at)


async def _page(tr: Transaction, begin: bytes, end: bytes) -> list[tuple[InodeId, GarbageRow]]:
    found = await tr.get_range(begin, end, limit=PAGE, snapshot=True)
    return [(keys.inode_of_key(key), decode(GarbageRow, value)) for key, value in found]


async def _finish(tr: Transaction, inodes: list[InodeId]) -> None:
    for inode in inodes:
        tr.clear(keys.garbage_key(inode))
