"""Where new inodes come from: their numbers, the layout of new files, the root."""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ROOT_INODE, InodeId
from fireflyfs.kv import keys
from fireflyfs.kv.atomic import pack_signed, unpack_signed
from fireflyfs.kv.retry import transact
from fireflyfs.layout import Layout
from meta_service import rows
from meta_service.schema import InodeRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fireflyfs.ids import ChainId
    from fireflyfs.kv.base import Engine, Transaction

BLOCK = 1024
"""Numbers that a server takes at once; what it has not used when it dies is lost, never reused."""
NEXT_BLOCK_KEY = keys.counter_key("inode")
STRIPE = 16
"""Chains that a new file is spread over, if there are as many."""
ORDERS = 1024
"""Different orders of the chains that new files begin with, by inode number."""


class InodeIds:
    """Numbers for new inodes, from blocks taken out of the store. Each is handed out once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._block = iter(range(0))
        self._lock = trio.Lock()

    async def take(self) -> InodeId:
        """Raises FsError: those of the store."""
        while True:
            number = next(self._block, None)
            if number is not None:
                return InodeId(number)
            async with self._lock:
                spare = next(self._block, None)
                if spare is not None:
                    return InodeId(spare)
                first = await transact(self._engine, _take_block)
                self._block = iter(range(first, first + BLOCK))


async def _take_block(tr: Transaction) -> int:
    """Run again after an unknown result it takes one more block: no harm."""
    first = max(unpack_signed(await tr.get(NEXT_BLOCK_KEY)), BLOCK)
    tr.set(NEXT_BLOCK_KEY, pack_signed(first + BLOCK))
    return first


class Layouts:
    """The layout of a new file, by its inode number: chains in an order that differs by file."""

    def __init__(self, chunk_size: int, chains: Callable[[], Sequence[ChainId]]) -> None:
        """``chains``: those that new files may use at the moment."""
        self._chunk_size = chunk_size
        self._chains = chains
        self._orders: dict[int, Layout] = {}
        self._ordered: Sequence[ChainId] = ()

    def of(self, inode: InodeId) -> Layout:
        """Raises FsError: ``CHAIN_UNAVAILABLE`` when there is no chain."""
        chains = self._chains()
        if chains != self._ordered:
            self._ordered, self._orders = chains, {}
        if not chains:
            raise FsError(Code.CHAIN_UNAVAILABLE, "there is no chain to put files on")
        layout = self._orders.get(inode % ORDERS)
        if layout is None:
            order = random.Random(inode % ORDERS).sample(chains, min(STRIPE, len(chains)))
            layout = self._orders[inode % ORDERS] = Layout(self._chunk_size, tuple(order))
        return layout


async def ensure_root(engine: Engine, now: int, uid: int, gid: int) -> None:
    """Make the root directory if it is not there; any number of servers may do so at once."""

    async def attempt(tr: Transaction) -> None:
        if await tr.get(keys.inode_key(ROOT_INODE)) is None:
            row = InodeRow(stat.S_IFDIR | 0o755, uid, gid, 1, now, now, now, parent=ROOT_INODE)
            rows.add_inode(tr, ROOT_INODE, row)

    await transact(engine, attempt)
