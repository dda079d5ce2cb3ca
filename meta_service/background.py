"""What a metadata server does unasked: garbage, silent clients, old answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fireflyfs.clock import file_time_ns
from fireflyfs.errors import FsError
from meta_service import lease
from meta_service.gc import Collector
from meta_service.operation import sweep_results
from meta_service.sessions import EXPIRED_SECONDS, prune

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Never

    from fireflyfs.ids import Generation
    from fireflyfs.kv.base import Engine
    from meta_service.gc import ChunkStorage

logger = logging.getLogger(__name__)

COLLECT_SECONDS = 1.0
PRUNE_SECONDS = 5.0
STILL_SECONDS = 15
"""From one round to the next: clients may not have been heard for as long."""
SWEEP_SECONDS = 30.0


async def work(
    engine: Engine,
    storage: ChunkStorage,
    generation: Generation,
    clock: Callable[[], int] = file_time_ns,
) -> Never:
    """Do it all, for ever, while this server has the lease.

    Nobody is pruned until this server has worked for as long as a client may be silent: after an
    outage of all servers every client looks dead, and the living need time to be heard. A server
    that stood still (with its machine, or because its store did not take anything) begins anew.
    """
    collector = Collector(engine, storage)
    began = worked = clock()

    async def prune_after_a_while() -> int:
        nonlocal began, worked
        now = clock()
        if now - worked > STILL_SECONDS * 10**9:
            began = now
        worked = now
        if now - began < EXPIRED_SECONDS * 10**9:
            return 0
        return await prune(engine, storage, now)

    async def repeat(every: float, job: Callable[[], Awaitable[int]], what: str) -> None:
        while True:
            await trio.sleep(every)
            try:
                if await lease.hold(engine, generation, clock()) and (count := await job()):
                    logger.info("%s: %d", what, count)
            except FsError as error:
                logger.warning("%s failed, will be tried again: %s", what, error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat, COLLECT_SECONDS, collector.collect, "files collected")
        nursery.start_soon(
            repeat, SWEEP_SECONDS, lambda: sweep_results(engine, clock()), "old answers swept"
        )
        nursery.start_soon(repeat, PRUNE_SECONDS, prune_after_a_while, "silent clients")
    raise AssertionError("unreachable")
