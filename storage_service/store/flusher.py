"""Flushes: shared by concurrent callers, and made in the background at least once a second."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from storage_service.store.failures import translated

if TYPE_CHECKING:
    from storage_service.store.drafts import Drafter
    from storage_service.store.epochs import Epoch, Epochs
    from storage_service.store.writer import Writer

INTERVAL = 1.0
"""Seconds between flushes of a store that is being written."""

_log = logging.getLogger(__name__)


class Flusher:
    """Used from trio."""

    def __init__(self, writer: Writer, epochs: Epochs, drafter: Drafter) -> None:
        self._writer = writer
        self._epochs = epochs
        self._drafter = drafter
        self._running = trio.Lock()
        self._begun = 0
        self._finished = 0

    async def flush(self) -> None:
        """Everything acknowledged before the call is durable on return.

        Callers that arrive while a flush runs share the next one. Raises ``FsError``: NO_SPACE;
        TARGET_FAILED, and the store takes no change afterwards.
        """
        wanted = self._begun + 1
        async with self._running:
            if self._finished >= wanted:
                return
            self._begun += 1
            number = self._begun
            await self._flush()
            self._finished = number

    async def _flush(self) -> None:
        epochs: list[Epoch] = []
        await self._writer.act(lambda: epochs.extend(self._epochs.close()))
        try:
            await trio.to_thread.run_sync(self._epochs.sync, epochs)
        except OSError as error:
            self._writer.fail(f"flush: {error}")
            raise FsError(Code.TARGET_FAILED, translated(error, "flush").message) from error
        except FsError as error:
            if error.code is not Code.NO_SPACE:
                self._writer.fail(str(error))
            raise
        await self._writer.act(lambda: self._epochs.settle(epochs, self._drafter))

    async def run(self) -> None:
        """Flush in the background, until cancelled or the store fails."""
        said = ""
        while self._writer.failure is None:
            await trio.sleep(INTERVAL)
            if not self._epochs.is_dirty():
                continue
            try:
                await self.flush()
            except FsError as error:
                if said != str(error):
                    _log.error("the store does not flush: %s", error)
                said = str(error)
            else:
                said = ""
