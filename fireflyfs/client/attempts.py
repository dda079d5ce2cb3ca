"""Patience of one request: attempts, pauses between them, and the deadline that ends them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import FsError

if TYPE_CHECKING:
    from fireflyfs.client.cluster import Cluster

DEADLINE = 30.0
"""Seconds after which a request that only met retryable errors fails with the last of them."""
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5


class Attempts:
    """Paces the attempts of one request.

    Pauses double from ``FIRST_PAUSE`` to ``LONGEST_PAUSE`` seconds, with jitter so that clients
    that failed together do not come back together; newer routing ends a pause at once, for it is
    what most failures wait for.
    """

    def __init__(self, cluster: Cluster, what: str, seconds: float = DEADLINE) -> None:
        self._cluster = cluster
        self._what = what
        self._seconds = seconds
        self._until = trio.current_time() + seconds
        self._pause = FIRST_PAUSE
        self._count = 0

    def timeout(self, longest: float) -> float:
        """Seconds to give the next attempt: ``longest``, or what is left of the deadline."""
        return max(0.001, min(longest, self._until - trio.current_time()))

    async def failed(self, error: FsError, routing_version: int) -> None:
        """Pause before the next attempt; ``routing_version`` is what the failed one went by.

        Raises:
            FsError: ``error`` itself if it is final; its code with the story when time is up.
        """
        if not error.retry:
            raise error
        self._count += 1
        left = self._until - trio.current_time()
        if left <= 0:
            raise FsError(
                error.code,
                f"{self._what}: gave up after {self._seconds:g} s and {self._count} attempts",
            ) from error
        pause = min(self._pause * random.uniform(0.5, 1.5), left)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        await self._cluster.refresh(routing_version, pause)
