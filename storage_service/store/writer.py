"""The one thread that changes a store. Jobs come from trio tasks and are done in batches.

The jobs of a batch share one write to RocksDB, and one wake-up of the event loop. A batch never
holds two jobs of one chunk, so each sees what was published before it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from storage_service.store.failures import translated
from storage_service.store.metadata import chunk_key, redo_key, undo_key
from storage_service.store.record import Record, encode, encode_redo

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage_service.store.cache import Cache, Entry
    from storage_service.store.drafts import Drafter
    from storage_service.store.epochs import Epochs
    from storage_service.store.metadata import Metadata, Put
    from storage_service.store.space import Space
    from storage_service.store.updates import Change

MAX_JOBS = 64


@dataclass(slots=True)
class Job:
    """``plan`` makes the change of one chunk; ``act`` is anything else, done alone."""

    chunk: bytes = b""
    plan: Callable[[Record | None], Change | None] | None = None
    act: Callable[[], object] | None = None
    done: trio.Event = field(default_factory=trio.Event)
    result: object = None
    error: Exception | None = None
    entry: Entry | None = None
    change: Change | None = None


class Writer:
    """Start it with ``start``, from trio; ``stop`` ends it after the jobs that were given."""

    def __init__(
        self,
        metadata: Metadata,
        cache: Cache,
        space: Space,
        drafter: Drafter,
        epochs: Epochs,
        chunks: int,
    ) -> None:
        self._metadata = metadata
        self._cache = cache
        self._space = space
        self.drafter = drafter
        self._epochs = epochs
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._run, name="chunk-writer", daemon=True)
        self.chunks = chunks
        """Number of records."""
        self.failure: str | None = None

    def start(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()

    async def change(
        self, chunk: bytes, plan: Callable[[Record | None], Change | None]
    ) -> Record | None:
        """Do the change; the chunk's record after it. Not cancellable once begun."""
        result = await self._do(Job(chunk, plan))
        assert result is None or isinstance(result, Record)
        return result

    async def act(self, act: Callable[[], object]) -> object:
        """Run ``act`` in the thread, between batches. Not cancellable once begun."""
        return await self._do(Job(act=act))

    async def _do(self, job: Job) -> object:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._queue.put(job)
        with trio.CancelScope(shield=True):
            await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.result

    async def stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._thread.join)

    def fail(self, reason: str) -> None:
        """Refuse every later change, and say why."""
        self.failure = self.failure or reason

    def _run(self) -> None:
        while (jobs := self._next()) is not None:
            try:
                self._execute(jobs)
            except Exception as error:  # a defect; what is on the disk is safe, we may not be
                self.fail(f"the writer has a defect: {error!r}")
                for job in jobs:
                    job.error = job.error or error
            self._deliver(jobs)

    def _execute(self, jobs: list[Job]) -> None:
        if jobs[0].act is not None:
            self._attempt(jobs[0], self._act)
            return
        self._batch(jobs)
        for job in jobs:
            if _is_full(job.error) and self._epochs.is_dirty():
                self._retry(job)

    def _next(self) -> list[Job] | None:
        """At least one job: an act alone, or changes of different chunks; None to stop."""
        if not self._waiting:
            job = self._queue.get()
            if job is None:
                return None
            self._waiting.append(job)
        while len(self._waiting) < MAX_JOBS and not self._queue.empty():
            job = self._queue.get()
            if job is None:
                self._queue.put(None)
                break
            self._waiting.append(job)
        batch = [self._waiting.popleft()]
        chunks = {batch[0].chunk}
        while batch[0].plan and self._waiting and self._waiting[0].plan:
            if self._waiting[0].chunk in chunks:
                break
            batch.append(self._waiting.popleft())
            chunks.add(batch[-1].chunk)
        return batch

    def _deliver(self, jobs: list[Job]) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(_wake, jobs)
        except trio.RunFinishedError:
            self.fail("the event loop has ended")

    def _act(self, job: Job) -> None:
        assert job.act is not None
        job.result = job.act()

    def _attempt(self, job: Job, step: Callable[[Job], None]) -> None:
        """Do a step of a job and note what it raises; a real failure of the disk is final."""
        try:
            if self.failure is not None:
                raise FsError(Code.TARGET_FAILED, f"the target has failed: {self.failure}")
            step(job)
        except OSError as error:
            job.error = translated(error, f"chunk {job.chunk.hex()}" if job.chunk else "target")
            job.error.__cause__ = error
        except Exception as error:  # handed to the task that waits for the job
            job.error = error
        if isinstance(job.error, FsError) and job.error.code is Code.TARGET_FAILED:
            self.fail(str(job.error))

    def _batch(self, jobs: list[Job]) -> None:
        puts: list[Put] = []
        for job in jobs:
            self._attempt(job, self._plan)
            if job.error is None and job.change is not None:
                puts += self._puts(job.change)
        try:
            if puts:
                self._metadata.write(puts)
        except FsError as error:
            self._undo(jobs, error)
        for job in jobs:
            self._finish(job)

    def _plan(self, job: Job) -> None:
        assert job.plan is not None
        job.entry = self._cache.hold(job.chunk)
        job.change = job.plan(job.entry.record)

    def _retry(self, job: Job) -> None:
        """The disk is full: free what waits for a flush, then try once more."""
        job.error = None
        self._attempt(job, self._make_room)
        if job.error is None:
            self._batch([job])

    def _make_room(self, _: Job) -> None:
        self.flush_now()
        self._space.trim(everything=True)

    def flush_now(self) -> None:
        """Flush in this thread."""
        epochs = self._epochs.close()
        self._epochs.sync(epochs)
        self._epochs.settle(epochs, self.drafter)

    def _puts(self, change: Change) -> list[Put]:
        chunk, epoch = change.chunk, self._epochs.open
        new = None if change.after is None else encode(chunk, change.after)
        puts: list[Put] = [(chunk_key(chunk), new)]
        if chunk not in epoch.changed:
            old = b"" if change.before is None else encode(chunk, change.before)
            puts.append((undo_key(epoch.number, chunk), old))
        if change.redo is not None:
            puts.append((redo_key(change.redo.sequence), encode_redo(change.redo)))
        return puts

    def _undo(self, jobs: list[Job], error: FsError) -> None:
        """Nothing of the batch was stored: give back what it took."""
        for job in jobs:
            if job.change is not None:
                if job.change.taken is not None:
                    self._space.give_back(job.change.taken)
                job.error, job.change = error, None
        if error.code is not Code.NO_SPACE:
            self.fail(str(error))

    def _finish(self, job: Job) -> None:
        if job.entry is None:
            return
        if job.error is None:
            if job.change is not None:
                self._publish(job.entry, job.change)
            job.result = job.entry.record
        job.entry.held -= 1
        job.entry = None

    def _publish(self, entry: Entry, change: Change) -> None:
        epoch = self._epochs.open
        if change.chunk not in epoch.changed:
            epoch.changed.add(change.chunk)
            entry.held += 1
        with self._cache.lock:
            if change.redo is not None:
                self._attach(change)
            entry.record = change.after
        for block in change.released:
            block.released = True
        epoch.released += change.released
        self.chunks += (change.after is not None) - (change.before is not None)
        now = change.after.committed if change.after else None
        if now and now.content.block and now.content.redos:
            epoch.redone[now.content.block] = now.content.redo_upto

    def _attach(self, change: Change) -> None:
        assert change.redo is not None
        assert change.after is not None
        for block in change.after.blocks():
            if block.location == change.redo.location:
                block.redos = (*block.redos, change.redo)
        self.drafter.redo_bytes += len(change.redo.data)


def _wake(jobs: list[Job]) -> None:
    for job in jobs:
        job.done.set()


def _is_full(error: Exception | None) -> bool:
    return isinstance(error, FsError) and error.code is Code.NO_SPACE
