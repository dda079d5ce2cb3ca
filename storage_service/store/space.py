"""Blocks taken and given back: the allocator's maps and the data files, kept in step."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fireflyfs.limits import MIB
from storage_service.store.allocator import CLASSES, SlotMap, block_size, class_for
from storage_service.store.record import Block

if TYPE_CHECKING:
    from storage_service.store.blocks import BlockFiles
    from storage_service.store.record import Location

WARM_BYTES = 16 * MIB
"""Free space that a quiet class keeps for the next writes, at most; the rest is punched out."""
_PUNCHES_A_TIME = 256
_RESERVED_PART = 16
_MAX_RESERVE = 256 * MIB
_STEP_PART = 16
"""Of what is left: all targets of a disk may grow at once, and the reserve must outlive it."""


class Space:
    """Used by the writer thread only, but for the counters.

    The last part of the file system (1/16, at most 256 MiB) is not given to chunks: the metadata
    of all targets, and of the cluster, must be able to record removals when the disk is full. Half
    of it is open to updates that have begun: other replicas may have them already.
    """

    def __init__(self, files: BlockFiles) -> None:
        self._files = files
        self._maps = [SlotMap() for _ in range(CLASSES)]
        self._busy: set[int] = set()
        for size_class, slots in enumerate(self._maps):
            slots.extend(files.slots(size_class))
        self.used = 0
        """Bytes in used blocks."""
        self.warm = sum(len(m) * block_size(c) for c, m in enumerate(self._maps))
        """Bytes in free blocks that the file system still holds for us, at most."""
        self.reserve = min(_MAX_RESERVE, files.total_bytes() // _RESERVED_PART)
        self._warm_limit = min(WARM_BYTES, self.reserve // 16)

    def occupy(self, location: Location) -> bool:
        """Opening: a record refers to this block. False if it cannot be so."""
        size_class, slot = location
        if size_class >= CLASSES or not self._maps[size_class].occupy(slot):
            return False
        self.used += block_size(size_class)
        self.warm -= block_size(size_class)
        return True

    def take(self, length: int) -> Block:
        """A block for ``length`` bytes. Raises ``OSError``, ENOSPC within the reserve too."""
        size_class = class_for(length)
        slots = self._maps[size_class]
        warm = slots.warm
        if not warm and (room := self._room()) < block_size(size_class):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        slot = slots.take()
        if slot is None:
            added = self._files.grow(size_class, room // _STEP_PART)
            slots.extend(added)
            self.warm += added * block_size(size_class)
            warm = slots.warm
            slot = slots.take()
            assert slot is not None
        self._busy.add(size_class)
        self.used += block_size(size_class)
        if warm:
            self.warm -= block_size(size_class)
        return Block(size_class, slot)

    def left(self) -> int:
        """Bytes that chunks may take from the file system; negative within the reserve."""
        return self._files.free_bytes() - self.reserve

    def _room(self) -> int:
        return self.left() + self.reserve // 2

    def require_room(self) -> None:
        """For writes that take no block but metadata. Raises ``OSError`` with ENOSPC."""
        if self._files.free_bytes() < self.reserve // 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def give_back(self, block: Block) -> None:
        self._maps[block.size_class].release(block.slot)
        self.used -= block.size
        self.warm += block.size

    def has_excess(self) -> bool:
        return any(m.warm * block_size(c) > self._warm_limit for c, m in enumerate(self._maps))

    def trim(self, *, everything: bool = False) -> None:
        """Give free blocks of classes that took none since the last call back to the file system.

        With ``everything``, and when the disk is full, of all classes and to the last block: what
        one target holds back, another and the metadata need. Raises ``OSError``.
        """
        everything = everything or self.left() <= 0
        for size_class, slots in enumerate(self._maps):
            if everything:
                excess = limit = slots.warm
            elif size_class in self._busy:
                continue
            else:
                excess = slots.warm - self._warm_limit // block_size(size_class)
                limit = min(excess, _PUNCHES_A_TIME)
            if excess > 0:
                self._punch(size_class, slots.cool(limit))
        self._busy.clear()

    def _punch(self, size_class: int, slots: list[int]) -> None:
        for slot in slots:
            self._files.punch((size_class, slot))
            self.warm -= block_size(size_class)
