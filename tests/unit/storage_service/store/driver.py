"""Drives a chunk store and a model of it side by side; shared by the tests of this directory."""

from __future__ import annotations

import random
import shutil
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from fireflyfs.checksum import checksums, crc32c
from fireflyfs.ids import ChunkId, InodeId, chunk_id
from fireflyfs.net.messages import UpdateKind
from storage_service.store.store import ChunkStore
from storage_service.store.types import StoreIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

IDENTITY = StoreIdentity("test-cluster", 7)
INODE = InodeId(5)
WHOLE = 1 << 26


def chunk(index: int) -> ChunkId:
    return chunk_id(INODE, index)


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[ChunkStore]:
    """A store in ``directory`` that is closed in the end."""
    async with trio.open_nursery() as nursery:
        store = await ChunkStore.open(directory, IDENTITY, nursery=nursery)
        try:
            yield store
        finally:
            await store.close()


async def put(
    store: ChunkStore, index: int, version: int, offset: int, data: bytes, *, step: str = "both"
) -> None:
    """Write ``data``: ``step`` is "both" (two calls), "prepare" or "once" (one call)."""
    view = memoryview(data)
    call = store.prepare_and_commit if step == "once" else store.prepare
    await call(
        chunk(index),
        kind=UpdateKind.WRITE,
        version=version,
        offset=offset,
        length=len(data),
        data=view,
        checksums=checksums(offset, view),
        chain_version=1,
        tags=(),
    )
    if step == "both":
        await store.commit(chunk(index), version, 1)


END = -1


@dataclass(frozen=True)
class Op:
    """One update of a chunk; data is derived from ``seed``."""

    index: int
    kind: UpdateKind
    offset: int
    """END: where the chunk ends."""
    length: int
    seed: int
    finish: str
    """"once", "commit", "pending", "abort"."""

    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.length)

    def applied(self, old: bytes) -> bytes | None:
        """The chunk after it; None when removed."""
        if self.kind is UpdateKind.REMOVE:
            return None
        if self.kind is UpdateKind.REPLACE:
            return self.data()
        if self.kind is UpdateKind.TRUNCATE:
            return old[: self.length] + bytes(max(0, self.length - len(old)))
        if self.length == 0:
            return old + bytes(max(0, self.offset - len(old)))
        old += bytes(max(0, self.offset - len(old)))
        return old[: self.offset] + self.data() + old[self.offset + self.length :]


@dataclass
class State:
    """What a chunk should be."""

    version: int = 0
    data: bytes | None = None
    pending: int = 0
    pending_data: bytes | None = None


@dataclass
class Model:
    states: dict[int, State] = field(default_factory=dict)

    prepared: Callable[[], None] | None = None
    """Called when an operation has stored its pending version."""

    def copy(self) -> Model:
        return Model(deepcopy(self.states))

    def state(self, index: int) -> State:
        return self.states.setdefault(index, State())

    async def do(self, store: ChunkStore, op: Op) -> None:
        state = self.state(op.index)
        if op.offset == END:
            op = replace(op, offset=len(state.data or b""))
        if state.pending and op.finish == "commit" and op.seed % 2:
            await store.commit(chunk(op.index), state.pending, 1)
            self._commit(state)
            return
        version = state.version + 1
        carries = op.kind in (UpdateKind.WRITE, UpdateKind.REPLACE)
        data = memoryview(op.data()) if carries else memoryview(b"")
        offset = op.offset if op.kind is UpdateKind.WRITE else 0
        call = store.prepare_and_commit if op.finish == "once" else store.prepare
        await call(
            chunk(op.index),
            kind=op.kind,
            version=version,
            offset=offset,
            length=0 if op.kind is UpdateKind.REMOVE else op.length,
            data=data if carries else None,
            checksums=checksums(offset, data),
            chain_version=1,
            tags=(),
        )
        state.pending, state.pending_data = version, op.applied(state.data or b"")
        if self.prepared is not None and op.finish != "once":
            self.prepared()
        if op.finish == "commit":
            await store.commit(chunk(op.index), version, 1)
        if op.finish == "abort":
            await store.abort(chunk(op.index))
            state.pending, state.pending_data = 0, None
        if op.finish in ("once", "commit"):
            self._commit(state)

    def _commit(self, state: State) -> None:
        state.data = state.pending_data
        state.version = state.pending if state.data is not None else 0
        state.pending, state.pending_data = 0, None

    async def check(self, store: ChunkStore) -> None:
        """The store holds exactly this."""
        for index, state in self.states.items():
            assert await observed(store, index) == state
        alive = [i for i, s in sorted(self.states.items()) if s.data is not None or s.pending]
        assert [stored.chunk for stored in store.list(b"", 1000)] == [chunk(i) for i in alive]
        assert [index for index, _ in store.query(INODE, 0, 1000)] == alive
        assert store.usage().chunks == len(alive)


async def observed(store: ChunkStore, index: int) -> State:
    """What the store says about a chunk, with all sums checked."""
    meta = store.meta(chunk(index))
    if meta is None:
        return State()
    state = State(meta.version)
    if meta.version:
        state.data = await _content(store, index, meta.length, meta.checksum, pending=False)
    if meta.pending_version:
        state.pending = meta.pending_version
        if not meta.pending_removed:
            state.pending_data = await _content(
                store, index, meta.pending_length, meta.pending_checksum, pending=True
            )
    return state


async def _content(
    store: ChunkStore, index: int, length: int, checksum: int, *, pending: bool
) -> bytes:
    outcome = await store.read(chunk(index), 0, WHOLE, pending=pending)
    assert len(outcome.data) == length
    assert outcome.checksums == checksums(0, outcome.data)
    sums = b"".join(value.to_bytes(4, "little") for value in outcome.checksums)
    assert checksum == (crc32c(sums) if sums else 0)
    return bytes(outcome.data)


def random_op(rng: random.Random, chunks: int = 4) -> Op:
    kinds = [UpdateKind.WRITE] * 7 + [UpdateKind.TRUNCATE] * 2
    kinds += [UpdateKind.REPLACE, UpdateKind.REMOVE]
    return Op(
        index=rng.randrange(chunks),
        kind=rng.choice(kinds),
        offset=rng.choice([END, END, END, 0, 1, 4096, 16384, 20000, rng.randrange(120_000)]),
        length=rng.choice([0, 1, 500, 4096, 16384, 20000, 40000, rng.randrange(100_000)]),
        seed=rng.randrange(1 << 30),
        finish=rng.choice(["once", "once", "commit", "commit", "pending", "abort"]),
    )


def crash_copy(source: Path, target: Path) -> Path:
    """The directory as ``kill -9`` would leave it: what is in the page cache."""
    shutil.copytree(source, target)
    return target
