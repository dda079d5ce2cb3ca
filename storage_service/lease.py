"""Until when this node may answer: checked when an answer is given, not by a background task.

A process that was stopped and goes on does not answer a single read with what it held before: the
clock has gone on, and the manager has long given its place to others. That holds for a machine that
was suspended as well, so the lease goes by the clock that counts that time, too.
"""

from __future__ import annotations

import trio

from fireflyfs.clock import since_boot
from fireflyfs.errors import Code, FsError


class Lease:
    def __init__(self) -> None:
        self._until = 0.0
        self._until_since_boot = 0.0

    def extend(self, sent: float, seconds: float) -> None:
        """The manager accepted a heartbeat that was sent at ``sent`` (trio's clock)."""
        if sent + seconds > self._until:
            self._until = sent + seconds
            self._until_since_boot = since_boot() + self._until - trio.current_time()

    @property
    def is_valid(self) -> bool:
        return trio.current_time() < self._until and since_boot() < self._until_since_boot

    def check(self) -> None:
        """Raises FsError(LEASE_EXPIRED)."""
        if not self.is_valid:
            raise FsError(
                Code.LEASE_EXPIRED, "the manager has not heard this node for too long to answer"
            )
