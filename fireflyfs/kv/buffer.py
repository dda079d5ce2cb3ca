"""What a transaction holds until its commit: its own writes, and what it read and wrote. Pure.

Engines that validate at commit share this. ``Writes`` is kept normalized, so that it can be laid
over a snapshot and applied in one order whatever the order of the calls was: cleared ranges, then
values (``None``: cleared), then atomic steps on values that are not known yet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fireflyfs.kv.limited import STAMP_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Pair = tuple[bytes, bytes]
    Step = tuple[Callable[[bytes | None, int], bytes], int]

_LENGTHS = struct.Struct(">HH")
_STAMP = struct.Struct(">QHH")
assert _STAMP.size == STAMP_SIZE


@dataclass(slots=True)
class Footprint:
    """Keys and ranges touched: two transactions conflict when one's reads meet other's writes."""

    keys: set[bytes] = field(default_factory=set)
    ranges: list[Pair] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.keys or self.ranges)

    def meets(self, other: Footprint) -> bool:
        return (
            not self.keys.isdisjoint(other.keys)
            or _any_inside(self.keys, other.ranges)
            or _any_inside(other.keys, self.ranges)
            or any(b < end and begin < e for b, e in self.ranges for begin, end in other.ranges)
        )

    def meets_key(self, key: bytes) -> bool:
        return key in self.keys or any(begin <= key < end for begin, end in self.ranges)

    def encode(self) -> bytes:
        """Each item: length of begin, length of end (0: a key) as 16 bits, begin, end."""
        parts: list[bytes] = []
        for key in self.keys:
            parts += (_LENGTHS.pack(len(key), 0), key)
        for begin, end in self.ranges:
            parts += (_LENGTHS.pack(len(begin), len(end)), begin, end)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Footprint:
        found, at = cls(), 0
        while at < len(data):
            first, second = _LENGTHS.unpack_from(data, at)
            middle = at + _LENGTHS.size + first
            begin, end = data[at + _LENGTHS.size : middle], data[middle : middle + second]
            at = middle + second
            if second:
                found.ranges.append((begin, end))
            else:
                found.keys.add(begin)
        return found


def _any_inside(keys: Iterable[bytes], ranges: list[Pair]) -> bool:
    return bool(ranges) and any(b <= key < e for key in keys for b, e in ranges)


@dataclass(slots=True)
class Writes:
    """A transaction's own writes, to be read through and to be applied."""

    cleared: list[Pair] = field(default_factory=list)
    values: dict[bytes, bytes | None] = field(default_factory=dict)
    steps: dict[bytes, list[Step]] = field(default_factory=dict)
    """Only for keys that are not known: never in ``values`` nor in ``cleared``."""
    stamped: list[Pair] = field(default_factory=list)
    """(prefix, value) of versionstamped keys, in order."""
    touched: Footprint = field(default_factory=Footprint)
    size: int = 0
    """Bytes of keys and values handed in."""

    def put(self, key: bytes, value: bytes | None) -> None:
        self.values[key] = value
        self.steps.pop(key, None)
        self._touch(key, len(value) if value is not None else 0)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for known in (self.values, self.steps):
            for key in [key for key in known if begin <= key < end]:
                del known[key]
        self.cleared.append((begin, end))
        self.touched.ranges.append((begin, end))
        self.size += len(begin) + len(end)

    def step(self, key: bytes, step: Step) -> None:
        function, operand = step
        if self.knows(key):
            self.values[key] = function(self.values.get(key), operand)
        else:
            self.steps.setdefault(key, []).append(step)
        self._touch(key, 8)

    def stamp(self, prefix: bytes, value: bytes) -> None:
        self.stamped.append((prefix, value))
        self.size += len(prefix) + len(value) + _STAMP.size

    def name_stamped(self, version: int) -> None:
        """Give versionstamped keys their names; once the commit version is certain."""
        for order, (prefix, value) in enumerate(self.stamped):
            self.put(prefix + _STAMP.pack(version, 0, order), value)
        self.stamped.clear()

    def knows(self, key: bytes) -> bool:
        """Whether ``values.get(key)`` is the value, whatever the snapshot holds."""
        return key in self.values or (bool(self.cleared) and self._is_cleared(key))

    def applied(self, key: bytes, base: bytes | None) -> bytes | None:
        """The value of a key that is not known, over the snapshot's ``base``."""
        for function, operand in self.steps.get(key, ()):
            base = function(base, operand)
        return base

    def overlay(self, begin: bytes, end: bytes, pairs: list[Pair], reverse: bool) -> list[Pair]:
        """All pairs of a range of the snapshot with these writes laid over them."""
        merged = {key: value for key, value in pairs if not self.knows(key)}
        own = {k: v for k, v in self.values.items() if v is not None and begin <= k < end}
        merged.update(own)
        for key in self.steps:
            if begin <= key < end:
                merged[key] = self.applied(key, merged.get(key)) or b""
        return sorted(merged.items(), reverse=reverse)

    def _is_cleared(self, key: bytes) -> bool:
        return any(begin <= key < end for begin, end in self.cleared)

    def _touch(self, key: bytes, size: int) -> None:
        self.touched.keys.add(key)
        self.size += len(key) + size
