"""Reads of chunk ranges: one attempt against one node, verified before anyone sees the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs import checksum
from fireflyfs.errors import Code, FsError, code_of
from fireflyfs.ids import chunk_index, chunk_owner
from fireflyfs.net.codec import from_wire, to_wire
from fireflyfs.net.messages import Method, ReadItem, ReadReply, ReadRequest, ReadResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireflyfs.ids import ChainId, ChunkId
    from fireflyfs.net.client import Peers
    from fireflyfs.routing import Node


@dataclass(frozen=True, slots=True)
class Range:
    """Wanted: bytes of a chunk from ``offset`` on, as many as ``buffer`` holds."""

    chain: ChainId
    chunk: ChunkId
    offset: int
    buffer: memoryview

    def __str__(self) -> str:
        return (
            f"chunk {chunk_owner(self.chunk)}.{chunk_index(self.chunk)} "
            f"[{self.offset}+{len(self.buffer)}] of chain {self.chain}"
        )


async def read_from(
    peers: Peers, node: Node, ranges: Sequence[Range], timeout: float
) -> list[int | FsError]:
    """Ask one node for many ranges in one frame.

    Returns for each range the number of bytes found (the rest of its buffer is zeroed) or why it
    failed (its buffer then holds anything).

    Raises:
        FsError: the request failed as a whole; ``MALFORMED`` for a reply that makes no sense.
    """
    request = ReadRequest([ReadItem(r.chain, r.chunk, r.offset, len(r.buffer)) for r in ranges])
    reply = await peers.call(
        node.addresses,
        Method.READ,
        to_wire(request),
        timeout=timeout,
        into=[r.buffer for r in ranges],
    )
    results = from_wire(ReadReply, reply.body).results
    _check_shape(node, ranges, results, reply.received)
    _spread(ranges, results)
    return [_outcome(node, r, result) for r, result in zip(ranges, results, strict=True)]


def _check_shape(
    node: Node, ranges: Sequence[Range], results: Sequence[ReadResult], received: int
) -> None:
    fits = len(results) == len(ranges) and all(
        result.length <= len(r.buffer) for r, result in zip(ranges, results, strict=True)
    )
    if not fits or sum(result.length for result in results) != received:
        raise FsError(
            Code.MALFORMED,
            f"node {node.node_id} answered {len(ranges)} reads with {len(results)} results "
            f"and {received} bytes",
        )


def _spread(ranges: Sequence[Range], results: Sequence[ReadResult]) -> None:
    """Payload arrives without gaps: after a short result the rest lies too early. Move it."""
    short = next(
        (i for i, result in enumerate(results) if result.length < len(ranges[i].buffer)), None
    )
    if short is None or not any(result.length for result in results[short + 1 :]):
        return
    rest = b"".join(r.buffer for r in ranges[short:])
    position = 0
    for r, result in zip(ranges[short:], results[short:], strict=True):
        r.buffer[: result.length] = rest[position : position + result.length]
        position += result.length


def _outcome(node: Node, wanted: Range, result: ReadResult) -> int | FsError:
    if result.code:
        return FsError(code_of(result.code), f"node {node.node_id}, {wanted}: {result.message}")
    found = wanted.buffer[: result.length]
    bad = checksum.first_mismatch(wanted.offset, found, result.checksums)
    if bad is not None:
        return FsError(
            Code.CHECKSUM, f"node {node.node_id}, {wanted}: wrong bytes from offset {bad} on"
        )
    if result.length < len(wanted.buffer):
        wanted.buffer[result.length :] = bytes(len(wanted.buffer) - result.length)
    return result.length
