"""The values that ``add`` and ``maximum`` work on, and what these do: the same on every engine.

As in FoundationDB: 8 bytes little-endian, an absent or short value is extended by zeros, a longer
one is cut, and sums wrap around at 64 bits.
"""

from __future__ import annotations

import struct

_SIGNED = struct.Struct("<q")
_UNSIGNED = struct.Struct("<Q")
_MASK = (1 << 64) - 1
_ZERO = bytes(8)


def pack_signed(number: int) -> bytes:
    return _SIGNED.pack(number)


def unpack_signed(value: bytes | None) -> int:
    """The counter that ``add`` keeps; 0 when absent."""
    number: int = _SIGNED.unpack(_eight(value))[0]
    return number


def pack_unsigned(number: int) -> bytes:
    return _UNSIGNED.pack(number)


def unpack_unsigned(value: bytes | None) -> int:
    """The number that ``maximum`` keeps; 0 when absent."""
    number: int = _UNSIGNED.unpack(_eight(value))[0]
    return number


def added(value: bytes | None, delta: int) -> bytes:
    return _UNSIGNED.pack((unpack_unsigned(value) + delta) & _MASK)


def raised(value: bytes | None, least: int) -> bytes:
    return _UNSIGNED.pack(max(unpack_unsigned(value), least))


def _eight(value: bytes | None) -> bytes:
    if not value:
        return _ZERO
    return value if len(value) == 8 else value[:8].ljust(8, b"\0")
