"""Many may be inside at once, or one shuts the others out: writes of a file, and its truncation."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Gate:
    def __init__(self) -> None:
        self._inside = 0
        self._emptied = trio.Event()
        self._opened: trio.Event | None = None
        """While it is shut."""

    async def wait_open(self) -> None:
        """Returns while it is open; ``inside`` may then be entered before the next await."""
        while self._opened is not None:
            await self._opened.wait()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._emptied.set()

    @contextlib.asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """Let nobody in; begins when all are out. One caller at a time."""
        self._opened = opened = trio.Event()
        try:
            while self._inside:
                self._emptied = trio.Event()
                await self._emptied.wait()
            yield
        finally:
            self._opened = None
            opened.set()
