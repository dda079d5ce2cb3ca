"""CRC32C of chunk bytes, by pieces that never cross a sub-block. The only import of ``crc32c``.

A range of a chunk is cut at multiples of ``SUB_BLOCK`` counted from the start of the chunk; each
piece has its own CRC32C (RFC 3720, appendix B.4). The same list travels with the bytes from the
client's buffer to the medium and back, so a whole sub-block is summed once and its sum stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crc32c import crc32c as _crc32c

from fireflyfs.limits import SUB_BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer


def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC32C of ``data``, continued from ``value``."""
    result: int = _crc32c(data, value)
    return result


def piece_bounds(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each piece of ``[offset, offset + length)``, relative to ``offset``."""
    start = 0
    while start < length:
        end = min(length, start + SUB_BLOCK - (offset + start) % SUB_BLOCK)
        yield start, end
        start = end


def piece_count(offset: int, length: int) -> int:
    if length <= 0:
        return 0
    return (offset + length - 1) // SUB_BLOCK - offset // SUB_BLOCK + 1


def checksums(offset: int, data: memoryview) -> list[int]:
    """One CRC32C for each piece of ``data``, which lies at ``offset`` of its chunk."""
    return [_crc32c(data[start:end]) for start, end in piece_bounds(offset, len(data))]


def first_mismatch(offset: int, data: memoryview, expected: Sequence[int]) -> int | None:
    """Chunk offset of the first piece whose sum differs from ``expected``; None if all agree."""
    if len(expected) != piece_count(offset, len(data)):
        return offset
    for (start, end), want in zip(piece_bounds(offset, len(data)), expected, strict=True):
        if _crc32c(data[start:end]) != want:
            return offset + start
    return None
