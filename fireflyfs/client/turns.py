"""Updates of one chunk take turns: the exactly-once rule of the chains asks for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fireflyfs.ids import ChunkId


@dataclass(slots=True)
class _Turn:
    lock: trio.Lock = field(default_factory=trio.Lock)
    users: int = 0


class Turns:
    """One lock for each chunk that is being updated, and none for the others."""

    def __init__(self) -> None:
        self._turns: dict[ChunkId, _Turn] = {}

    @contextlib.asynccontextmanager
    async def of(self, chunk: ChunkId) -> AsyncIterator[None]:
        """Hold the turn of ``chunk``; first come, first served."""
        turn = self._turns.setdefault(chunk, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[chunk]
