"""Until when this node may answer: checked when an answer is given, not by a background task.

A process that was stopped and goes on does not answer a single read with what it held before: the
clock has gone on, and the manager has long given its place to others.
"""

from __future__ import annotations

import trio

from fireflyfs.errors import Code, FsError


class Lease:
    def __init__(self) -> None:
        self._until = 0.0

    def extend(self, sent: float, seconds: float) -> None:
        """The manager accepted a heartbeat that was sent at ``sent`` (trio's clock)."""
        self._until = max(self._until, sent + seconds)

    @property
    def is_valid(self) -> bool:
        return trio.current_time() < self._until

    def check(self) -> None:
        """Raises FsError(LEASE_EXPIRED)."""
        if not self.is_valid:
            raise FsError(
                Code.LEASE_EXPIRED, "the manager has not heard this node for too long to answer"
            )
