"""Several requests at once, as one: all are finished when it is, and one failure speaks for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def together(jobs: Sequence[Callable[[], Awaitable[None]]], at_once: int = 64) -> None:
    """Run all jobs, at most ``at_once`` at a time, and wait for all of them.

    A failed job does not cancel the others: an update cut off halfway has an unknown outcome, one
    that is waited for has not.

    Raises:
        FsError: the first failure.
    """
    if len(jobs) == 1:
        await jobs[0]()
        return
    failures: list[FsError] = []
    slots = trio.Semaphore(at_once)

    async def run(job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except FsError as error:
            failures.append(error)
        finally:
            slots.release()

    async with trio.open_nursery() as nursery:
        for job in jobs:
            await slots.acquire()
            nursery.start_soon(run, job)
    if failures:
        raise failures[0]
