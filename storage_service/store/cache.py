"""Records in memory: what was used recently, and everything that the running process must not lose.

``Block`` objects carry readers and redo writes, so there must be one for each block: a record that
is read, changed, or has redos stays in memory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage_service.store.metadata import chunk_key
from storage_service.store.record import Content, Record, Redo, decode

if TYPE_CHECKING:
    from storage_service.store.metadata import Metadata

LIMIT = 32768
"""Records kept; more only while they cannot be dropped."""
_TRIED = 8


@dataclass(slots=True)
class Entry:
    record: Record | None
    held: int = 0
    """Reasons of the writer to keep it: jobs in progress and epochs that changed it."""

    def droppable(self) -> bool:
        if self.held:
            return False
        if self.record is None:
            return True
        return not any(block.readers or block.redos for block in self.record.blocks())


@dataclass(slots=True)
class Pin:
    """One reader's hold on a content; its block is neither reused nor changed meanwhile."""

    version: int
    content: Content
    redos: tuple[Redo, ...]


class Cache:
    """Safe for any thread; the lock is held for microseconds (a read from RocksDB at most)."""

    def __init__(self, metadata: Metadata, limit: int = LIMIT) -> None:
        self._metadata = metadata
        self._limit = limit
        self._entries: dict[bytes, Entry] = {}
        self.lock = threading.Lock()

    def record(self, chunk: bytes) -> Record | None:
        """Raises ``FsError`` if the record cannot be read or is damaged."""
        entry = self._entries.get(chunk)
        if entry is None:
            with self.lock:
                entry = self._load(chunk)
        return entry.record

    def hold(self, chunk: bytes) -> Entry:
        """The entry, which stays until as many ``release`` calls."""
        with self.lock:
            entry = self._load(chunk)
            entry.held += 1
        return entry

    def pin(self, chunk: bytes, *, pending: bool) -> Pin | None:
        """Hold the committed or pending version of a chunk; None if there is none."""
        with self.lock:
            record = self._load(chunk).record
            version = record and (record.pending if pending else record.committed)
            if not version:
                return None
            content = version.content
            if content.block is not None:
                content.block.readers += 1
            return Pin(version.number, content, content.redos)

    def unpin(self, pin: Pin) -> None:
        if pin.content.block is not None:
            with self.lock:
                pin.content.block.readers -= 1

    def _load(self, chunk: bytes) -> Entry:
        entry = self._entries.get(chunk)
        if entry is None:
            raw = self._metadata.get(chunk_key(chunk))
            entry = Entry(None if raw is None else decode(chunk, raw))
            if len(self._entries) >= self._limit:
                self._drop_some()
            self._entries[chunk] = entry
        return entry

    def _drop_some(self) -> None:
        for chunk in [key for key, _ in zip(self._entries, range(_TRIED), strict=False)]:
            entry = self._entries.pop(chunk)
            if not entry.droppable():
                self._entries[chunk] = entry  # to the young end
