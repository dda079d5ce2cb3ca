"""Bringing the successor up to date, as ``storage_service.resync`` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain_replication import events as ev
from chain_replication.resync import Listed, compare
from fireflyfs.errors import Code, FsError
from tests.simulation.messages import Finishing, Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chain_replication import actions as act
    from tests.simulation.targets import Target

PAGE = 3
CALL_SECONDS = 5.0
CHUNK_SECONDS = 30.0
RETRY_SECONDS = 0.5
CONFIRM_SECONDS = 1.0
_BEFORE_ALL = b"\0"
"""No chunk has this id; a listing from here on does not begin a resync."""


class Resync:
    def __init__(self, target: Target, start: act.StartResync) -> None:
        self._target = target
        self._start = start
        self._process = target.process
        self._kernel = target.kernel

    async def run(self) -> None:
        while True:
            try:
                await self._once()
                while True:
                    await self._confirm()
                    await self._process.sleep(CONFIRM_SECONDS)
            except FsError as error:
                self._kernel.trace(f"target {self._target.target}", "resync begins anew:", error)
                self._kernel.probe("resync began anew")
                await self._process.sleep(RETRY_SECONDS)

    async def _once(self) -> None:
        version = self._start.chain_version
        await self._ask(lambda n: ev.SyncBarrier(n, version))
        await self._page(b"", 1)
        for copies in (False, True):
            await self._pass(copies=copies)
        self._kernel.probe("resync done")

    async def _pass(self, *, copies: bool) -> None:
        after = _BEFORE_ALL
        while True:
            theirs, their_end = await self._page(after, PAGE)
            ours = self._target.store.listing(after, PAGE)
            our_end = len(ours) < PAGE
            difference = compare(ours, our_end, theirs, their_end)
            for chunk in difference.copies if copies else difference.removals:
                await self._move(chunk)
            if our_end and their_end:
                return
            after = difference.upto

    async def _move(self, chunk: bytes) -> None:
        if pause := self._target.store.copying:
            await self._process.sleep(self._kernel.random.expovariate(1 / pause))
        if not self._target.replica.readable(chunk):
            self._kernel.probe("resync meets an update in flight")
        version = self._start.chain_version
        await self._ask(lambda n: ev.SyncChunk(n, version, chunk))

    async def _ask(self, make: Callable[[int], ev.Event]) -> None:
        await self._target.ask(make, timeout=CHUNK_SECONDS)

    async def _page(self, after: bytes, limit: int) -> tuple[Sequence[Listed], bool]:
        message = Listing(self._chain(), self._start.chain_version, after, limit)
        page: tuple[Sequence[Listed], bool] = await self._call("list", message)
        return page

    async def _confirm(self) -> None:
        await self._call("sync_done", Finishing(self._chain(), self._start.chain_version))

    async def _call(self, method: str, message: object) -> Any:
        node = self._target.node
        return await node.call(self._start.target.node_id, method, message, timeout=CALL_SECONDS)

    def _chain(self) -> int:
        chain = self._target.standing.chain
        if chain is None:
            raise FsError(Code.ROUTING_STALE, "the target has left its chain")
        number: int = chain.chain_id
        return number
