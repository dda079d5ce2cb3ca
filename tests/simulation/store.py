"""A chunk store without a disk, with the semantics of ``storage_service.store``.

A chunk's content is a tuple of cells; each cell says which write it is from. Changes are made one
after the other (one writer thread), each some time after it was asked for; what was made survives
the death of the process, and the one being made may or may not. What was flushed survives a power
cut; of what came after, each chunk keeps some prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from chain_replication.resync import Listed
from chain_replication.versions import ChunkMeta
from fireflyfs.errors import Code, FsError
from fireflyfs.updates import UpdateKind
from tests.simulation.kernel import Future

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain_replication.actions import Persist
    from chain_replication.versions import AppliedTag
    from tests.simulation.kernel import Kernel, Process

T = TypeVar("T")
Content = tuple[int, ...]
FLUSH_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    chain_version: int
    content: Content
    tags: tuple[AppliedTag, ...]
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    committed: Version | None
    pending: Version | None = None

    def meta(self) -> ChunkMeta:
        now = self.committed or Version(0, 0, (), ())
        meta = ChunkMeta(
            now.number, len(now.content), digest(now.content), now.chain_version, tags=now.tags
        )
        if self.pending is not None:
            meta.pending_version = self.pending.number
            meta.pending_length = len(self.pending.content)
            meta.pending_checksum = digest(self.pending.content)
            meta.pending_removed = self.pending.removed
            meta.tags = self.pending.tags
        return meta


def digest(content: Content) -> int:
    return hash(content) & 0xFFFFFFFF if content else 0


def updated(base: Content, action: Persist, payload: Content) -> Content:
    """What the chunk becomes."""
    update = action.update
    if update.kind is UpdateKind.REMOVE:
        return ()
    if update.kind is UpdateKind.REPLACE:
        return payload
    if update.kind is UpdateKind.TRUNCATE:
        return (*base, *(0,) * (update.length - len(base)))[: update.length]
    end = update.offset + len(payload)
    padded = (*base, *(0,) * (update.offset - len(base)))
    return (*padded[: update.offset], *payload, *padded[end:])


class SimStore:
    """The disk of one target. A process opens it with ``open`` and owns it until it dies."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.records: dict[bytes, Record] = {}
        self.delay = 0.0005
        """Mean seconds of a change."""
        self.copying = 0.0
        """Mean seconds between two chunks that recovery moves from here."""
        self.is_full = False
        self.failure: str | None = None
        self.on_change: Callable[[bytes, Record | None, Record | None], None] = lambda *_: None
        self._durable: dict[bytes, Record] = {}
        self._since: dict[bytes, list[Record | None]] = {}
        self._process: Process | None = None
        self._queue: list[Callable[[], Callable[[], None]]] = []
        self._unheard = 0
        self.tainted = False
        """A power cut may have taken acknowledged updates, and nobody has replaced them yet."""
        self.emptied = False
        """The disk was replaced by an empty one, and nobody has filled it yet."""

    def open(self, process: Process) -> None:
        self._process = process
        self.failure = None
        process.after(self._background_delay(), self._flush_in_background)

    # Changes

    def prepare(self, action: Persist, payload: Content) -> Future[ChunkMeta]:
        """Pending, or with ``action.commit`` committed at once. The meta is that of the chunk."""
        return self._change(lambda: self._prepare(action, payload))

    def _prepare(self, action: Persist, payload: Content) -> ChunkMeta:
        chunk, update = action.update.chunk, action.update
        if self.is_full and update.kind is not UpdateKind.REMOVE:
            raise FsError(Code.NO_SPACE, f"{self.name} is full")
        record = self.records.get(chunk)
        committed = record.committed if record is not None else None
        base = committed.content if committed is not None else ()
        removed = update.kind is UpdateKind.REMOVE
        version = Version(
            action.version,
            action.chain_version,
            updated(base, action, payload),
            action.tags,
            removed,
        )
        if action.commit:
            self._put(chunk, None if removed else Record(version))
            if removed:
                return ChunkMeta(action.version, 0, 0, action.chain_version, tags=action.tags)
        else:
            self._put(chunk, Record(committed, version))
        return self.records[chunk].meta()

    def commit(self, chunk: bytes, version: int, chain_version: int) -> Future[None]:
        return self._change(lambda: self._commit(chunk, version, chain_version))

    def _commit(self, chunk: bytes, version: int, chain_version: int) -> None:
        record = self.records.get(chunk)
        if record is None:
            return
        pending = record.pending
        if pending is None or pending.number != version:
            if record.committed is not None and version <= record.committed.number:
                return
            raise FsError(Code.VERSION_GAP, f"{self.name}: version {version} is not pending")
        settled = replace(pending, chain_version=chain_version)
        self._put(chunk, None if pending.removed else Record(settled))

    def abort(self, chunk: bytes) -> Future[None]:
        return self._change(lambda: self._abort(chunk))

    def _abort(self, chunk: bytes) -> None:
        record = self.records.get(chunk)
        if record is not None and record.pending is not None:
            self._put(chunk, Record(record.committed) if record.committed else None)

    def flush(self) -> Future[None]:
        return self._change(self._flush)

    def _flush(self) -> None:
        self._durable = dict(self.records)
        self._since.clear()

    def _flush_in_background(self) -> None:
        self.flush()
        assert self._process is not None
        self._process.after(self._background_delay(), self._flush_in_background)

    def _background_delay(self) -> float:
        return FLUSH_INTERVAL * (0.5 + self.kernel.random.random())

    def _put(self, chunk: bytes, record: Record | None) -> None:
        before = self.records.get(chunk)
        if record is None:
            self.records.pop(chunk, None)
        else:
            self.records[chunk] = record
        self._since.setdefault(chunk, []).append(record)
        self.on_change(chunk, before, record)

    # The writer

    def _change(self, change: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._queue.append(partial(_carry_out, self, change, future))
        if len(self._queue) == 1:
            self._schedule()
        return future

    def _schedule(self) -> None:
        assert self._process is not None
        delay = self.kernel.random.expovariate(1 / self.delay)
        self._process.after(delay, self._work)

    def _work(self) -> None:
        """The first change in the queue is made; its process learns of it a little later."""
        report = self._queue[0]()
        assert self._process is not None
        self._unheard += 1
        self._process.after(
            self.kernel.random.expovariate(1 / self.delay), lambda: self._tell(report)
        )
        del self._queue[0]
        if self._queue:
            self._schedule()

    def _tell(self, report: Callable[[], None]) -> None:
        self._unheard -= 1
        report()

    def close(self) -> None:
        """The process is dead: of the changes that it had asked for, some were made."""
        if self._unheard:
            self.kernel.probe("died between storing and hearing of it")
        self._unheard = 0
        made = self.kernel.random.randrange(len(self._queue) + 1)
        for change in self._queue[:made]:
            change()
        self._queue.clear()
        self._process = None

    def empty(self) -> None:
        """After ``close``."""
        self.records.clear()
        self._flush()
        self.emptied, self.tainted = True, False

    def cut_power(self) -> None:
        """After ``close``."""
        for chunk, states in sorted(self._since.items()):
            kept = self.kernel.random.randrange(len(states) + 1)
            record = states[kept - 1] if kept else self._durable.get(chunk)
            before = self.records.get(chunk)
            if record == before:
                continue
            self.tainted = True
            if record is None:
                self.records.pop(chunk, None)
            else:
                self.records[chunk] = record
        self._flush()

    # Reads

    def meta(self, chunk: bytes) -> ChunkMeta | None:
        record = self.records.get(chunk)
        return None if record is None else record.meta()

    def has_room(self, size: int) -> bool:
        return True

    def read(self, chunk: bytes, *, pending: bool = False) -> tuple[int, Content]:
        """(version, content) as of now; version 0 where there is none."""
        record = self.records.get(chunk)
        version = None
        if record is not None:
            version = record.pending if pending else record.committed
        return (0, ()) if version is None else (version.number, version.content)

    def listing(self, after: bytes, limit: int) -> list[Listed]:
        chunks = sorted(chunk for chunk in self.records if chunk > after)[:limit]
        return [_listed(chunk, self.records[chunk].meta()) for chunk in chunks]


def _carry_out(store: SimStore, change: Callable[[], T], future: Future[T]) -> Callable[[], None]:
    """Make the change now; what is returned tells the process."""
    if store.failure is not None:
        failed = FsError(Code.TARGET_FAILED, store.failure)
        return lambda: future.fail(failed)
    try:
        result = change()
    except FsError as error:
        refusal = error
        return lambda: future.fail(refusal)
    return lambda: future.set(result)


def _listed(chunk: bytes, meta: ChunkMeta) -> Listed:
    return Listed(chunk, meta.version, meta.checksum, meta.length, bool(meta.pending_version))
