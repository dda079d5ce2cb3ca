"""Clients that live, and the end of those that do not.

A client is alive while it is heard. Hearing it is kept in memory; the store learns of it every
``REFRESH_SECONDS``, so that any server can tell. The sessions of a silent client are closed for it:
a file without names goes, the length of a file that it was writing is settled from the chunks.
"""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import FsError
from fireflyfs.ids import ChainId, ClientId, InodeId
from fireflyfs.kv import keys
from fireflyfs.kv.retry import transact
from meta_service import rows
from meta_service.ops.session import close_session, grow
from meta_service.schema import ClientRow, InodeRow, SessionRow, decode, encode

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine, Transaction
    from meta_service.gc import ChunkStorage

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 20
SILENT_SECONDS = 60
EXPIRED_SECONDS = SILENT_SECONDS + REFRESH_SECONDS
"""Age of a stored row that proves ``SILENT_SECONDS`` of silence."""
PAGE = 256
CHUNK_PAGE = 1024


@dataclass(slots=True)
class _Heard:
    stored_at: float
    """trio's clock, when the row was written."""
    host: str
    mountpoint: str


class Clients:
    """The clients that this server hears."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._heard: dict[ClientId, _Heard] = {}

    async def keep_alive(self, client: ClientId, host: str, mountpoint: str, now: int) -> None:
        """A client says that it is there, and where. Raises FsError: the store's."""
        known = self._heard.get(client)
        if known is None or (known.host, known.mountpoint) != (host, mountpoint):
            await self._store(client, ClientRow(now, host, mountpoint))
        else:
            await self.heard(client, now)

    async def heard(self, client: ClientId, now: int) -> None:
        """A client that is about to get a session is there: its row exists when this returns."""
        known = self._heard.get(client)
        if known is not None and trio.current_time() - known.stored_at < REFRESH_SECONDS:
            return
        if known is None:
            await self._store(client, await self._stored(client, now))
        else:
            await self._store(client, ClientRow(now, known.host, known.mountpoint))

    async def _stored(self, client: ClientId, now: int) -> ClientRow:
        async def read(tr: Transaction) -> ClientRow:
            value = await tr.get(keys.client_key(client))
            return ClientRow(now) if value is None else decode(ClientRow, value)

        row = await transact(self._engine, read)
        row.seen = now
        return row

    async def _store(self, client: ClientId, row: ClientRow) -> None:
        async def write(tr: Transaction) -> None:
            tr.set(keys.client_key(client), encode(row))

        now = trio.current_time()
        await transact(self._engine, write)
        self._forget_silent(now)
        self._heard[client] = _Heard(now, row.host, row.mountpoint)

    def _forget_silent(self, now: float) -> None:
        silent = [c for c, h in self._heard.items() if now - h.stored_at > EXPIRED_SECONDS]
        for client in silent:
            del self._heard[client]


async def prune(engine: Engine, storage: ChunkStorage, now: int) -> int:
    """Close all sessions of clients that have been silent for too long; how many clients.

    A file whose chunks cannot be asked now keeps its session, and its client, for the next time.

    Raises:
        FsError: those of the store.
    """
    pruned = 0
    for client, row in await _expired(engine, now):
        logger.info("client %d on %r is silent: closing its files", client, row.host)
        if await _prune_client(engine, storage, client, row.seen, now):
            pruned += 1
    return pruned


async def _expired(engine: Engine, now: int) -> list[tuple[ClientId, ClientRow]]:
    async def read(tr: Transaction) -> list[tuple[bytes, bytes]]:
        return await tr.get_range(*keys.client_range(), snapshot=True)

    found = [(keys.client_of_key(k), decode(ClientRow, v)) for k, v in await transact(engine, read)]
    return [(c, row) for c, row in found if now - row.seen > EXPIRED_SECONDS * 10**9]


async def _prune_client(
    engine: Engine, storage: ChunkStorage, client: ClientId, seen: int, now: int
) -> bool:
    """False when it came back meanwhile, or when a file has to wait."""
    begin, end = keys.client_session_range(client)
    waiting = False
    while page := await transact(engine, partial(_page, begin=begin, end=end)):
        for key, _ in page:
            inode = keys.inode_of_client_session_key(key)
            try:
                if not await _end_session(engine, storage, inode, client, seen, now):
                    return False
            except FsError as error:
                logger.warning("inode %d of dead client %d has to wait: %s", inode, client, error)
                waiting = True
        begin = keys.after(page[-1][0])
    if waiting:
        return False
    return await transact(engine, partial(_clear_client, client=client, seen=seen))


async def _page(tr: Transaction, begin: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
    return await tr.get_range(begin, end, limit=PAGE, snapshot=True)


async def _clear_client(tr: Transaction, client: ClientId, seen: int) -> bool:
    if not await _still_silent(tr, client, seen):
        return False
    if await tr.get_range(*keys.client_session_range(client), limit=1):
        return False
    tr.clear(keys.client_key(client))
    tr.clear_range(*keys.request_range(client))
    return True


async def _still_silent(tr: Transaction, client: ClientId, seen: int) -> bool:
    """Conflicts with the client's being heard again."""
    value = await tr.get(keys.client_key(client))
    return value is not None and decode(ClientRow, value).seen == seen


async def _end_session(
    engine: Engine, storage: ChunkStorage, inode: InodeId, client: ClientId, seen: int, now: int
) -> bool:
    """False when the client came back."""
    seen_row, writes = await transact(engine, partial(_read_session, inode=inode, client=client))
    length = 0
    if seen_row is not None and writes and seen_row.nlink:
        length = await settled_length(storage, inode, seen_row)

    async def end(tr: Transaction) -> bool:
        if not await _still_silent(tr, client, seen):
            return False
        close_session(tr, inode, client)
        row = await _find_inode(tr, inode)
        if row is None:
            return True
        if not row.nlink:
            await _end_orphan(tr, inode, row, now, writes=writes)
            return True
        settled = length if seen_row and row.length >= seen_row.length else 0  # not truncated
        if grow(row, settled, now if settled > row.length else 0, now):
            rows.put_inode(tr, inode, row)
        return True

    return await transact(engine, end)


async def _end_orphan(
    tr: Transaction, inode: InodeId, row: InodeRow, now: int, *, writes: bool
) -> None:
    if await rows.is_open(tr, inode):
        return
    if writes:  # the dead client may have written anywhere: every chain is asked for chunks
        row.peak = max(row.peak, row.chunk_size * len(row.chains))
    tr.clear(keys.orphan_key(inode))
    rows.forget_inode(tr, inode, row, now)


async def _read_session(
    tr: Transaction, inode: InodeId, client: ClientId
) -> tuple[InodeRow | None, bool]:
    """The inode, and whether the client may have written it."""
    session = await tr.get(keys.session_key(inode, client))
    writes = session is not None and decode(SessionRow, session).write
    return await _find_inode(tr, inode), writes


async def _find_inode(tr: Transaction, inode: InodeId) -> InodeRow | None:
    value = await tr.get(keys.inode_key(inode))
    return None if value is None else decode(InodeRow, value)


async def settled_length(storage: ChunkStorage, inode: InodeId, row: InodeRow) -> int:
    """Where the last chunk of a file ends, but no less than its stored length.

    Raises:
        FsError: those of the storage.
    """
    if not stat.S_ISREG(row.mode):
        return row.length
    length = row.length
    for chain in row.chains:
        first, end = row.length // row.chunk_size, False
        while not end:
            chunks, end = await storage.query(ChainId(chain), inode, first, CHUNK_PAGE)
            for index, size in chunks:
                length = max(length, index * row.chunk_size + size)
                first = index + 1
            end = end or not chunks
    return length
