"""Where the bytes of a file are: offset -> chain, chunk, range. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChunkId, InodeId, chunk_id
from fireflyfs.limits import MAX_CHUNK_SIZE, MAX_FILE_SIZE, MAX_STRIPE, MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunk ``i`` of the file lies on chain ``chains[i % len(chains)]``."""

    chunk_size: int
    """Bytes, a power of two."""
    chains: tuple[ChainId, ...]

    def __post_init__(self) -> None:
        size = self.chunk_size
        if size & (size - 1) or not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE:
            raise FsError(
                Code.INVALID,
                f"chunk size {size} is not a power of two, {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}",
            )
        if not 1 <= len(self.chains) <= MAX_STRIPE:
            raise FsError(Code.INVALID, f"a file lies on 1 to {MAX_STRIPE} chains")

    def chain_of(self, index: int) -> ChainId:
        return self.chains[index % len(self.chains)]


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a request that falls into one chunk."""

    chain: ChainId
    chunk: ChunkId
    offset: int
    """In the chunk."""
    length: int
    position: int
    """In the request's buffer."""


def extents(layout: Layout, inode: InodeId, offset: int, length: int) -> Iterator[Extent]:
    """Cut ``[offset, offset + length)`` of a file at chunk boundaries, in order.

    Raises:
        FsError: ``INVALID`` for a negative range, ``FILE_TOO_LARGE`` past the largest file.
    """
    if offset < 0 or length < 0:
        raise FsError(Code.INVALID, f"range {offset}+{length} is negative")
    if offset + length > MAX_FILE_SIZE:
        raise FsError(Code.FILE_TOO_LARGE, f"range {offset}+{length} ends past {MAX_FILE_SIZE}")
    position = 0
    while position < length:
        index, within = divmod(offset + position, layout.chunk_size)
        size = min(layout.chunk_size - within, length - position)
        yield Extent(layout.chain_of(index), chunk_id(inode, index), within, size, position)
        position += size
