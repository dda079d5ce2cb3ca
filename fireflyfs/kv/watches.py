"""Who waits for a key to change, in this process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.buffer import Footprint


class Watches:
    """Waiters by key; commits of this process wake them."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, trio.Event] = {}

    def wake(self, touched: Footprint) -> None:
        if not self._waiting:
            return
        for key in [key for key in self._waiting if touched.meets_key(key)]:
            self._waiting.pop(key).set()

    async def wait(
        self, key: bytes, changed: Callable[[], Awaitable[bool]], *, every: float = math.inf
    ) -> None:
        """Return once ``changed()``: asked at first, when woken, and ``every`` so many seconds."""
        await trio.lowlevel.checkpoint()
        while not await changed():
            event = self._waiting.setdefault(key, trio.Event())
            try:
                with trio.move_on_after(every):
                    await event.wait()
            finally:
                if self._waiting.get(key) is event and not event.statistics().tasks_waiting:
                    del self._waiting[key]
