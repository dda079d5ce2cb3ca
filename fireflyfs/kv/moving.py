"""Taking a whole namespace out of a store and putting one in: for dumps and moves between engines.

A namespace is read page by page, in one snapshot as long as that lives (5 seconds), then in the
next. Read in several, it is read again and compared: if every key was the same both times, what was
read is the state between the two readings; if not, somebody writes, and the reading is refused.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs.checksum import crc32c
from fireflyfs.errors import Code, FsError
from fireflyfs.kv.keys import after
from fireflyfs.kv.retry import RETRIED, transact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fireflyfs.kv.base import Engine, Transaction

    Pair = tuple[bytes, bytes]

EVERYTHING = (b"", b"\xff")
PAGE_PAIRS = 500
"""At most 50 MB of values, usually 50 kB."""
_TRANSACTION_BYTES = 1_000_000
_PATIENCE = 30.0
"""Seconds without an answer until a reading or a page of a writing is given up."""
_PAUSE = 0.25
_LENGTHS = struct.Struct(">II")


@dataclass(slots=True)
class Digest:
    """Two namespaces with the same digest hold the same keys and values."""

    pairs: int = 0
    size: int = 0
    """Bytes of keys and values."""
    checksum: int = 0

    def add(self, page: Sequence[Pair]) -> None:
        for key, value in page:
            lengths = _LENGTHS.pack(len(key), len(value))
            self.checksum = crc32c(value, crc32c(key, crc32c(lengths, self.checksum)))
            self.size += len(key) + len(value)
        self.pairs += len(page)


async def read_all(engine: Engine, sink: Callable[[list[Pair]], Awaitable[None]]) -> Digest:
    """Hand every page of a consistent state to ``sink``, in order of the keys.

    Errors:
        FsError: ``KV_CONFLICT``: the namespace changed meanwhile; what ``sink`` got is worthless.
            ``KV_UNAVAILABLE`` and others of the store, after 30 seconds without a page.
    """
    digest, snapshots = await _scan(engine, sink)
    if snapshots > 1 and (await _scan(engine, _nowhere))[0] != digest:
        raise FsError(
            Code.KV_CONFLICT, "the namespace changed while it was read: stop what writes to it"
        )
    return digest


async def digest_of(engine: Engine) -> Digest:
    return (await _scan(engine, _nowhere))[0]


async def is_empty(engine: Engine, timeout: float = _PATIENCE) -> bool:
    return not await transact(
        engine, lambda tr: tr.get_range(*EVERYTHING, limit=1, snapshot=True), timeout=timeout
    )


async def write_page(engine: Engine, page: Sequence[Pair]) -> None:
    """Set the pairs, in transactions of a megabyte. Raises what ``transact`` does."""
    part: list[Pair] = []
    size = 0
    for pair in page:
        part.append(pair)
        size += len(pair[0]) + len(pair[1])
        if size >= _TRANSACTION_BYTES:
            await _set(engine, part)
            part, size = [], 0
    if part:
        await _set(engine, part)


async def clear(engine: Engine) -> None:
    async def fn(tr: Transaction) -> None:
        tr.clear_range(*EVERYTHING)

    await transact(engine, fn, timeout=_PATIENCE)


@contextlib.asynccontextmanager
async def all_or_nothing(engine: Engine, *, force: bool) -> AsyncIterator[None]:
    """Fill an empty namespace; when that fails, it is empty again. ``force`` clears it first.

    Errors:
        FsError: ``EXISTS``: not empty. The body's, with a word more if the namespace could not be
            cleared: then it is no namespace, and only ``force`` may fill it again.
    """
    if not await is_empty(engine):
        if not force:
            raise FsError(Code.EXISTS, "the destination is not empty: --force replaces what it has")
        await clear(engine)
    try:
        yield
    except BaseException as error:
        await _clear_after(engine, error)
        raise


async def _clear_after(engine: Engine, failure: BaseException) -> None:
    with trio.CancelScope(shield=True):
        try:
            await clear(engine)
        except FsError as error:
            message = f"the destination holds a part only, and cannot be cleared ({error})"
            raise FsError(error.code, message) from failure


async def _scan(
    engine: Engine, sink: Callable[[list[Pair]], Awaitable[None]]
) -> tuple[Digest, int]:
    """The digest, and in how many snapshots it was read."""
    digest, snapshots, begin = Digest(), 1, EVERYTHING[0]
    deadline = trio.current_time() + _PATIENCE
    tr = engine.transaction()
    try:
        while True:
            try:
                page = await tr.get_range(begin, EVERYTHING[1], limit=PAGE_PAIRS, snapshot=True)
            except FsError as error:
                if error.code not in RETRIED or trio.current_time() > deadline:
                    raise
                tr.cancel()
                await trio.sleep(_PAUSE)
                tr = engine.transaction()
                snapshots += 1
                continue
            digest.add(page)
            await sink(page)
            if len(page) < PAGE_PAIRS:
                return digest, snapshots
            begin = after(page[-1][0])
            deadline = trio.current_time() + _PATIENCE
            await trio.lowlevel.checkpoint()
    finally:
        tr.cancel()


async def _set(engine: Engine, pairs: Sequence[Pair]) -> None:
    async def fn(tr: Transaction) -> None:
        for key, value in pairs:
            tr.set(key, value)

    await transact(engine, fn, timeout=_PATIENCE)


async def _nowhere(page: list[Pair]) -> None:
    pass
