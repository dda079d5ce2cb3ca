"""The chunk store of one target: the door.

Data lies in ``blocks/<size>.blocks``, one file for each power-of-two block size, 4 KiB to 64 MiB;
what lies where, and the CRC32C of every sub-block, in a RocksDB in ``metadata/``. A chunk has at
most one committed and one pending version. The modules, from the bottom: ``linux`` (two system
calls), ``allocator`` (free slots), ``blocks`` (data files), ``space`` (both together), ``record``
(what is known about a chunk), ``metadata`` (RocksDB), ``contents`` (verified reads), ``drafts``
(how bytes are written), ``updates`` (how records follow each other), ``cache``, ``epochs`` (why a
power cut loses nothing that was flushed), ``writer`` (the thread), ``flusher``, ``recovery``.

Acknowledged means: data in the page cache, metadata in RocksDB's log in the page cache. It survives
the death of the process. After ``flush`` it survives a power cut.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChunkId, chunk_id, chunk_index, chunk_owner
from fireflyfs.limits import KIB
from storage_service.store import identity as identities
from storage_service.store import updates
from storage_service.store.blocks import BlockFiles
from storage_service.store.cache import Cache
from storage_service.store.contents import Window
from storage_service.store.drafts import Drafter
from storage_service.store.epochs import Epochs
from storage_service.store.failures import translated
from storage_service.store.flusher import Flusher
from storage_service.store.metadata import CHUNK, STORE_UUID, Metadata
from storage_service.store.record import decode
from storage_service.store.recovery import recover
from storage_service.store.space import Space
from storage_service.store.types import ReadOutcome, StoredChunk, StoreIdentity, StoreUsage
from storage_service.store.updates import Update
from storage_service.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chain_replication.versions import AppliedTag, ChunkMeta
    from fireflyfs.ids import InodeId
    from fireflyfs.net.messages import UpdateKind
    from storage_service.store.record import Record

Listing = list[StoredChunk]
Lengths = list[tuple[int, int]]
"""(Within the class, ``list`` is the method.)"""

INLINE_READ = 256 * KIB
"""Bytes: reads up to this are tried on the event loop first, from the page cache."""
_READ_THREADS = 16


class ChunkStore:
    """All methods are for the trio thread that opened it."""

    def __init__(self, directory: Path, identity: StoreIdentity) -> None:
        """Opens in the calling thread; use ``open``."""
        self._lock = identities.lock(directory)
        try:
            store = identities.establish(directory, identity).bytes
            self._metadata = Metadata(directory / "metadata")
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._load(directory, store)
        except BaseException:
            self._metadata.close()
            os.close(self._lock)
            raise

    def _load(self, directory: Path, store: bytes) -> None:
        found = self._metadata.get(STORE_UUID)
        if found is None and next(self._metadata.scan(CHUNK), None) is None:
            self._metadata.write([(STORE_UUID, store)])
            self._metadata.sync()
        elif found != store:
            raise FsError(Code.CONFIG, f"{directory}: the metadata is of another store")
        self._files = BlockFiles(directory / "blocks")
        space = Space(self._files)
        cache = Cache(self._metadata)
        recovered = recover(self._metadata, self._files, space, cache)
        drafter = Drafter(self._files, space, recovered.next_redo)
        drafter.redo_bytes = recovered.redo_bytes
        epochs = Epochs(self._files, self._metadata, cache, space, 1)
        epochs.adopt(recovered.redone)
        self._space, self._cache = space, cache
        self._writer = Writer(self._metadata, cache, space, drafter, epochs, recovered.chunks)
        self._flusher = Flusher(self._writer, epochs, drafter)
        self._background = trio.CancelScope()
        self._readers = trio.CapacityLimiter(_READ_THREADS)

    @classmethod
    async def open(
        cls, directory: Path, identity: StoreIdentity, *, nursery: trio.Nursery
    ) -> ChunkStore:
        """Open the store in ``directory``, made if it is empty, replayed after a crash.

        Raises ``FsError``: CONFIG (another's directory, in use, unusable), TARGET_FAILED (damaged).
        """
        try:
            store = await trio.to_thread.run_sync(cls, directory, identity)
        except OSError as error:
            raise FsError(Code.TARGET_FAILED, f"{directory}: cannot be opened") from error
        store._writer.start()
        nursery.start_soon(store._run_in_background)
        return store

    async def _run_in_background(self) -> None:
        with self._background:
            await self._flusher.run()

    async def close(self) -> None:
        """Flush if possible and let go of everything. Never raises."""
        self._background.cancel()
        with trio.CancelScope(shield=True):
            try:
                if self.failure is None:
                    await self.flush()
            except FsError as error:
                self._writer.fail(str(error))
            await self._writer.stop()
            self._metadata.close()
            self._files.close()
            os.close(self._lock)

    @property
    def failure(self) -> str | None:
        """Why the target takes no changes any more; None while it is healthy."""
        return self._writer.failure

    # What is there

    def meta(self, chunk: ChunkId) -> ChunkMeta | None:
        """Newest state, with the pending version. Raises ``FsError(CHECKSUM)`` for a damaged
        record."""
        record = self._cache.record(chunk)
        return None if record is None else record.meta()

    def list(self, after: bytes, limit: int) -> Listing:
        """Up to ``limit`` chunks with ids greater than ``after``, by id."""
        found: Listing = []
        for chunk, raw in self._metadata.scan(CHUNK, after + b"\0"):
            if len(found) >= limit:
                break
            found.append(StoredChunk(ChunkId(chunk), decode(chunk, raw).meta()))
        return found

    def query(self, owner: InodeId, first_index: int, limit: int) -> Lengths:
        """(index, bytes) of up to ``limit`` chunks of a file, from ``first_index`` on. A chunk with
        a pending version counts with the longer of its lengths."""
        found: Lengths = []
        for key, raw in self._metadata.scan(CHUNK, chunk_id(owner, first_index)):
            chunk = ChunkId(key)
            if len(found) >= limit or chunk_owner(chunk) != owner:
                break
            lengths = [content.length for content in decode(key, raw).contents()]
            found.append((chunk_index(chunk), max(lengths)))
        return found

    def usage(self) -> StoreUsage:
        """Raises ``FsError(TARGET_FAILED)`` if the file system does not answer."""
        try:
            free = self._files.free_bytes() - self._space.reserve
        except OSError as error:
            raise translated(error, "usage") from error
        used = self._space.used
        capacity = used + self._space.warm + max(0, free)
        return StoreUsage(used=used, capacity=capacity, chunks=self._writer.chunks)

    def has_room(self, size: int) -> bool:
        """Whether updates of ``size`` bytes in all may begin; those that have begun get more.

        Raises ``FsError(TARGET_FAILED)`` if the file system does not answer.
        """
        try:
            return self._space.left() + self._space.warm >= size
        except OSError as error:
            raise translated(error, "usage") from error

    # Changes

    async def prepare(
        self,
        chunk: ChunkId,
        *,
        kind: UpdateKind,
        version: int,
        offset: int,
        length: int,
        data: memoryview | None,
        checksums: Sequence[int],
        chain_version: int,
        tags: tuple[AppliedTag, ...],
    ) -> ChunkMeta:
        """Store ``version`` as the pending one; the committed one stays readable.

        WRITE puts ``data`` at ``offset`` of the committed version, TRUNCATE makes it ``length``
        bytes long, REPLACE makes ``data`` the whole chunk; zeros fill gaps. ``checksums`` are of
        the pieces of ``data``. ``tags`` are kept with the version. On return it survives the
        death of the process. Raises ``FsError``: CHECKSUM (the data is not what was sent, or old
        bytes that must be kept are rotten), INVALID, NO_SPACE (nothing has changed),
        TARGET_FAILED (the store takes no change any more).
        """
        update = _update(kind, version, offset, length, data, checksums, chain_version, tags)
        return await self._prepare(chunk, update, updates.prepared)

    async def prepare_and_commit(
        self,
        chunk: ChunkId,
        *,
        kind: UpdateKind,
        version: int,
        offset: int,
        length: int,
        data: memoryview | None,
        checksums: Sequence[int],
        chain_version: int,
        tags: tuple[AppliedTag, ...],
    ) -> ChunkMeta:
        """As ``prepare`` and ``commit`` in one step; after a removal the meta of an empty chunk."""
        update = _update(kind, version, offset, length, data, checksums, chain_version, tags)
        return await self._prepare(chunk, update, updates.prepared_and_committed)

    async def _prepare(
        self, chunk: ChunkId, update: Update, plan: Callable[..., updates.Change]
    ) -> ChunkMeta:
        def work(record: Record | None) -> updates.Change:
            update.check(chunk)
            return plan(self._writer.drafter, chunk, record, update)

        record = await self._writer.change(chunk, work)
        return updates.removed_meta(update) if record is None else record.meta()

    async def commit(self, chunk: ChunkId, version: int, chain_version: int) -> None:
        """The pending ``version`` becomes the committed one; for a removal the chunk is gone.

        Does nothing if the version is committed already, or the chunk is gone. Raises ``FsError``:
        VERSION_GAP if ``version`` is neither pending nor committed; NO_SPACE, TARGET_FAILED.
        """
        await self._writer.change(
            chunk, lambda record: updates.committed(chunk, record, version, chain_version)
        )

    async def abort(self, chunk: ChunkId) -> None:
        """Drop the pending version, if there is one. Raises as ``commit``."""
        await self._writer.change(chunk, lambda record: updates.aborted(chunk, record))

    async def flush(self) -> None:
        """Everything acknowledged before is on the medium on return.

        Concurrent callers share one flush. Raises ``FsError(TARGET_FAILED)``.
        """
        await self._flusher.flush()

    # Reads

    async def read(
        self, chunk: ChunkId, offset: int, length: int, *, pending: bool = False
    ) -> ReadOutcome:
        """Verified bytes of the committed (or the pending) version, as of one instant.

        Shorter where the chunk ends; empty with version 0 where there is none. The buffer is the
        caller's. Raises ``FsError``: CHECKSUM (rot, naming chunk and offset), TARGET_FAILED.
        """
        pin = self._cache.pin(chunk, pending=pending)
        if pin is None:
            return ReadOutcome(memoryview(b""), 0, [])
        try:
            end = min(offset + length, pin.content.length)
            if offset >= end:
                return ReadOutcome(memoryview(b""), pin.version, [])
            window = Window(pin.content, pin.redos, offset, end)
            await self._fill(window, chunk)
            return ReadOutcome(window.data(), pin.version, window.sums())
        except OSError as error:
            self._writer.fail(f"chunk {chunk.hex()}: cannot be read: {error}")
            raise FsError(Code.TARGET_FAILED, f"chunk {chunk.hex()}: cannot be read") from error
        finally:
            self._cache.unpin(pin)

    async def _fill(self, window: Window, chunk: ChunkId) -> None:
        if len(window) <= INLINE_READ and window.read_nowait(self._files, chunk):
            await trio.lowlevel.checkpoint()
            return
        await trio.to_thread.run_sync(window.read, self._files, chunk, limiter=self._readers)


def _update(
    kind: UpdateKind,
    version: int,
    offset: int,
    length: int,
    data: memoryview | None,
    checksums: Sequence[int],
    chain_version: int,
    tags: tuple[AppliedTag, ...],
) -> Update:
    content = memoryview(b"") if data is None else data.cast("B")
    return Update(kind, version, offset, length, content, checksums, chain_version, tags)
