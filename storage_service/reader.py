"""Reads of committed versions, and the check that this node may answer them.

The hot path is service, target, ``ChunkStore.read``: the replica is only asked whether an update
hides the chunk. Whether we serve, and whether the lease holds, is checked when the bytes are here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fireflyfs.client.together import together
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import CHUNK_ID_SIZE, ChunkId
from fireflyfs.limits import KIB, MAX_BATCH, MAX_CHUNK_SIZE, MAX_FRAME_PAYLOAD
from fireflyfs.net.messages import ReadItem, ReadReply, ReadRequest, ReadResult
from fireflyfs.net.server import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage_service.lease import Lease
    from storage_service.store.types import ReadOutcome
    from storage_service.targets import Targets

PARK_SECONDS = 0.2
"""How long a read waits for an update in flight before it is sent to the tail."""
_SMALL = 64 * KIB
"""Bytes: reads up to this come from the page cache as a rule, so one after the other is faster."""
_AT_ONCE = 8
_EMPTY = memoryview(b"")


class Reader:
    def __init__(self, targets: Targets, lease: Lease) -> None:
        self._targets = targets
        self._lease = lease

    async def read(self, request: ReadRequest) -> Response:
        """All items in one frame, in order; what fails, fails for itself."""
        items = request.items
        _check(items)
        results: list[ReadResult | None] = [None] * len(items)
        views: list[memoryview] = [_EMPTY] * len(items)
        large: list[Callable[[], Awaitable[None]]] = []
        for i, item in enumerate(items):
            if item.length > _SMALL:
                large.append(partial(self._fill, i, item, results, views))
            else:
                await self._fill(i, item, results, views)
        if large:
            await together(large, _AT_ONCE)
        done = [result for result in results if result is not None]
        return Response(ReadReply(done), [view for view in views if len(view)])

    async def _fill(
        self,
        index: int,
        item: ReadItem,
        results: list[ReadResult | None],
        views: list[memoryview],
    ) -> None:
        try:
            found = await self._read(item)
        except FsError as error:
            results[index] = ReadResult(error.code, 0, 0, [], str(error))
            return
        views[index] = found.data
        results[index] = ReadResult(Code.OK, len(found.data), found.version, found.checksums)

    async def _read(self, item: ReadItem) -> ReadOutcome:
        target = self._targets.of_chain(item.chain)
        driver, chunk = target.driver, ChunkId(item.chunk)
        driver.standing.check_serving()
        if not driver.readable(chunk):
            await driver.wait_readable(chunk, PARK_SECONDS)
        try:
            found = await target.store.read(chunk, item.offset, item.length)
        except FsError as error:
            if error.code is Code.CHECKSUM:
                target.repairs.begin(chunk)
            raise
        driver.standing.check_serving()
        self._lease.check()
        return found


def _check(items: list[ReadItem]) -> None:
    if len(items) > MAX_BATCH:
        raise FsError(Code.INVALID, f"a batch has at most {MAX_BATCH} reads")
    if sum(item.length for item in items) > MAX_FRAME_PAYLOAD:
        raise FsError(Code.INVALID, f"one answer has at most {MAX_FRAME_PAYLOAD} bytes")
    for item in items:
        if len(item.chunk) != CHUNK_ID_SIZE:
            raise FsError(Code.INVALID, f"a chunk id has {CHUNK_ID_SIZE} bytes")
        if item.offset + item.length > MAX_CHUNK_SIZE:
            raise FsError(Code.INVALID, f"a chunk ends at {MAX_CHUNK_SIZE} bytes at the latest")
