"""Which blocks of the data files are free. Pure: no file is touched here.

Blocks come in power-of-two classes, 4 KiB to 64 MiB, one data file each; class ``c`` has blocks of
``4 KiB << c``. A class is a map of one byte for each slot, so that a search is one ``memchr``. A
free slot is warm (the file system still holds space for it: reusing it cannot run out of space and
is fast) or cold (punched out).
"""

from __future__ import annotations

from fireflyfs.limits import KIB, MIB

MIN_BLOCK = 4 * KIB
MAX_BLOCK = 64 * MIB
CLASSES = (MAX_BLOCK // MIN_BLOCK).bit_length()

_COLD, _USED, _WARM = 0, 1, 2


def block_size(size_class: int) -> int:
    """Bytes in a block of the class."""
    return MIN_BLOCK << size_class


def class_for(length: int) -> int:
    """Smallest class whose blocks hold ``length`` bytes (1 to 64 MiB)."""
    return max(0, (length - 1).bit_length() - MIN_BLOCK.bit_length() + 1)


class SlotMap:
    """The slots of one class."""

    def __init__(self) -> None:
        self._state = bytearray()
        self._hint = {_COLD: 0, _WARM: 0}
        self._count = {_COLD: 0, _WARM: 0}

    def __len__(self) -> int:
        return len(self._state)

    @property
    def used(self) -> int:
        return len(self._state) - self._count[_COLD] - self._count[_WARM]

    @property
    def warm(self) -> int:
        return self._count[_WARM]

    def extend(self, slots: int) -> None:
        """``slots`` more, free and warm, at the end."""
        self._hint[_WARM] = min(self._hint[_WARM], len(self._state))
        self._state += bytes([_WARM]) * slots
        self._count[_WARM] += slots

    def take(self) -> int | None:
        """A free slot, now used: a warm one if there is one, low ones first; None when full."""
        slot = self._take(_WARM)
        return slot if slot is not None else self._take(_COLD)

    def _take(self, state: int) -> int | None:
        if self._count[state] == 0:
            return None
        slot = self._state.find(state, self._hint[state])
        self._set(slot, _USED)
        self._count[state] -= 1
        self._hint[state] = slot + 1
        return slot

    def occupy(self, slot: int) -> bool:
        """Mark a slot that metadata refers to as used; False if it is not free or not there."""
        if slot >= len(self._state) or self._state[slot] == _USED:
            return False
        self._count[self._state[slot]] -= 1
        self._set(slot, _USED)
        return True

    def release(self, slot: int) -> None:
        """The used slot is free again, and warm."""
        if self._state[slot] != _USED:
            raise ValueError(f"slot {slot} is released but not used")
        self._free(slot, _WARM)

    def cool(self, limit: int) -> list[int]:
        """Up to ``limit`` warm slots, highest first, now cold: the caller punches them out."""
        cooled: list[int] = []
        end = len(self._state)
        while len(cooled) < limit and self._count[_WARM]:
            end = self._state.rfind(_WARM, 0, end)
            self._count[_WARM] -= 1
            self._free(end, _COLD)
            cooled.append(end)
        return cooled

    def _free(self, slot: int, state: int) -> None:
        self._set(slot, state)
        self._count[state] += 1
        self._hint[state] = min(self._hint[state], slot)

    def _set(self, slot: int, state: int) -> None:
        self._state[slot] = state
