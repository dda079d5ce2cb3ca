"""Epochs: what happened since the last flush, and how a power cut is survived.

The kernel writes dirty pages of data files and of the metadata's log to the medium in any order.
A record that reached the medium may therefore describe bytes that did not. Three rules make every
*flushed* state recoverable, whatever subset of later writes arrived:

1. Bytes of a flushed state are never written over. Updates go into fresh blocks, behind the highest
   byte in use (``Block.high``), or into the metadata as redo writes. A block that a record gave up
   is free only after a flush: then no state that recovery may choose refers to it.
2. With a chunk's first change in an epoch, the same metadata batch stores its record as it was (an
   *undo*). Opening a store verifies the bytes of every chunk that has an undo (changed within the
   last second or so): where they do not match their sums, the power was cut, and the newest undo
   whose bytes do match is restored. The flushed state always does. After ``kill -9`` the pages are
   all there, so the newest record matches and nothing acknowledged is lost.
3. A redo write is done in place only when the record that *committed* it is flushed, and it leaves
   the metadata only when the bytes in place are flushed as well. Until then opening finds it again,
   and a torn write in place lies under it.

A flush is: close the epoch; fdatasync the data files written in it; sync the metadata's log; settle
the epoch, that is forget its undos, free its blocks, do its redo writes in place (which makes the
next epoch dirty). Data goes first, so that what the synced log says is there, is there. The log's
own tail is cut by RocksDB at the first torn entry (point-in-time recovery): what is left is a
prefix in order of writing, which holds everything up to the last sync.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage_service.store.metadata import redo_key, undo_key

if TYPE_CHECKING:
    from storage_service.store.blocks import BlockFiles
    from storage_service.store.cache import Cache
    from storage_service.store.drafts import Drafter
    from storage_service.store.metadata import Metadata, Put
    from storage_service.store.record import Block, Redo
    from storage_service.store.space import Space


@dataclass(slots=True)
class Epoch:
    number: int
    files: list[int] = field(default_factory=list)
    """Classes of the data files to sync; known when it is closed."""
    changed: set[bytes] = field(default_factory=set)
    """Chunks that have an undo of this epoch."""
    released: list[Block] = field(default_factory=list)
    redone: dict[Block, int] = field(default_factory=dict)
    """Blocks whose redos up to a sequence were committed."""
    applied: list[tuple[Block, Redo]] = field(default_factory=list)
    """Redos written in place."""

    def is_dirty(self) -> bool:
        return bool(self.changed or self.released or self.redone or self.applied)


class Epochs:
    """The open epoch and those being flushed. Used by the writer thread, but for ``sync``."""

    def __init__(
        self, files: BlockFiles, metadata: Metadata, cache: Cache, space: Space, number: int
    ) -> None:
        self._files = files
        self._metadata = metadata
        self._cache = cache
        self._space = space
        self.open = Epoch(number)
        self._closed: list[Epoch] = []

    def adopt(self, redone: dict[Block, int]) -> None:
        """Opening: committed redos that were found."""
        self.open.redone.update(redone)

    def is_dirty(self) -> bool:
        return self.open.is_dirty() or bool(self._closed or self._files.dirty)

    def close(self) -> list[Epoch]:
        """End the epoch; all that are to be flushed now. Raises ``FsError``: nothing was done."""
        self._metadata.recover()
        self.open.files = self._files.take_dirty()
        self._closed.append(self.open)
        self.open = Epoch(self.open.number + 1)
        return list(self._closed)

    def sync(self, epochs: list[Epoch]) -> None:
        """Make them durable. Any thread. Raises ``OSError`` and ``FsError``."""
        self._files.sync(sorted({size_class for epoch in epochs for size_class in epoch.files}))
        self._metadata.sync()

    def settle(self, epochs: list[Epoch], drafter: Drafter) -> None:
        """They are durable. Raises ``OSError`` and ``FsError``."""
        for epoch in epochs:
            if epoch in self._closed:
                self._settle(epoch, drafter)
        self._space.trim()

    def _settle(self, epoch: Epoch, drafter: Drafter) -> None:
        gone = [redo for _, redo in epoch.applied]
        gone += [redo for block in epoch.released for redo in block.redos]
        puts: list[Put] = [(undo_key(epoch.number, chunk), None) for chunk in epoch.changed]
        puts += [(redo_key(redo.sequence), None) for redo in gone]
        self._metadata.write(puts)
        self._closed.remove(epoch)
        self._forget(epoch.applied, drafter)
        self._free(epoch.released, drafter)
        self._lower_marks(epoch)
        self._redo(epoch.redone)

    def _forget(self, applied: list[tuple[Block, Redo]], drafter: Drafter) -> None:
        for block, redo in applied:
            if not block.released:
                drafter.redo_bytes -= len(redo.data)
                with self._cache.lock:
                    block.redos = tuple(other for other in block.redos if other is not redo)

    def _free(self, released: list[Block], drafter: Drafter) -> None:
        for block in released:
            with self._cache.lock:
                read = block.readers > 0
            if read:
                self.open.released.append(block)
                continue
            drafter.redo_bytes -= sum(len(redo.data) for redo in block.redos)
            block.redos = ()
            self._space.give_back(block)

    def _lower_marks(self, epoch: Epoch) -> None:
        """Blocks of chunks that were not changed since have only their record's bytes in use."""
        for chunk in epoch.changed:
            entry = self._cache.hold(chunk)
            entry.held -= 2  # this hold and the epoch's
            if entry.held == 0 and entry.record is not None:
                for block in entry.record.blocks():
                    self._lower_mark(block, [c.length for c in entry.record.contents()])

    def _lower_mark(self, block: Block, lengths: list[int]) -> None:
        with self._cache.lock:
            if block.readers == 0:
                redone = [redo.end for redo in block.redos]
                block.high = max(lengths + redone)

    def _redo(self, redone: dict[Block, int]) -> None:
        for block, upto in redone.items():
            with self._cache.lock:
                read = block.readers > 0  # perhaps of a version without these bytes
            if block.released:
                continue
            if read:
                self.open.redone[block] = max(upto, self.open.redone.get(block, 0))
                continue
            for redo in block.redos:
                if redo.sequence <= upto and not redo.applied:
                    self._files.write(block.location, redo.offset, [memoryview(redo.data)])
                    redo.applied = True
                    self.open.applied.append((block, redo))
