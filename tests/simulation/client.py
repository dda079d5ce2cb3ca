"""A client: one operation after the other, each retried with the same tag until its deadline; as
``fireflyfs.client.storage`` does it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from chain_replication.events import Update
from fireflyfs.errors import Code, FsError
from fireflyfs.routing import Chain, ChainTarget, Routing
from fireflyfs.updates import UpdateKind
from tests.simulation.history import CELLS, Kind, Operation
from tests.simulation.kernel import Future
from tests.simulation.messages import Flushing, Reading, Updating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.history import History
    from tests.simulation.kernel import Process
    from tests.simulation.network import Network
    from tests.simulation.watch import Watch

READ_ATTEMPT = 2.0
UPDATE_ATTEMPT = 5.0
FLUSH_ATTEMPT = 20.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
POLL_SECONDS = 10.0
_KINDS = {
    Kind.WRITE: UpdateKind.WRITE,
    Kind.TRUNCATE: UpdateKind.TRUNCATE,
    Kind.REMOVE: UpdateKind.REMOVE,
}


class Client:
    """Draws its operations from ``mix`` (kind, weight) until told to ``stop``."""

    def __init__(
        self,
        process: Process,
        network: Network,
        managers: tuple[str, ...],
        number: int,
        history: History,
        values: itertools.count[int],
        watch: Watch,
    ) -> None:
        self.process = process
        self.kernel = process.kernel
        self.routing = Routing()
        self.deadline = 30.0
        self.idle = False
        self.stopping = False
        self._network = network
        self._managers = managers
        self._number = number
        self._history = history
        self._values = values
        self._watch = watch
        self._sequence = itertools.count(1)
        self._news: list[Future[None]] = []
        process.spawn(self._follow_routing())

    def work(
        self, chunks: Sequence[tuple[int, bytes]], mix: Sequence[tuple[Kind, float]], pause: float
    ) -> None:
        self.process.spawn(self._work(chunks, mix, pause))

    def stop(self) -> None:
        self.stopping = True

    async def _work(
        self, chunks: Sequence[tuple[int, bytes]], mix: Sequence[tuple[Kind, float]], pause: float
    ) -> None:
        random = self.kernel.random
        kinds, weights = [kind for kind, _ in mix], [weight for _, weight in mix]
        while not self.stopping:
            chain, chunk = random.choice(chunks)
            await self.perform(random.choices(kinds, weights)[0], chain, chunk)
            await self.process.sleep(random.expovariate(1 / pause))
        self.idle = True

    async def perform(self, kind: Kind, chain: int, chunk: bytes) -> Operation:
        operation = self._draw(kind, chain, chunk)
        self._history.operations.append(operation)
        self._trace(operation, "begins")
        try:
            if kind is Kind.READ:
                operation.version, operation.content = await self._read(operation)
            elif kind is Kind.FLUSH:
                await self._at_head(operation, FLUSH_ATTEMPT, None)
            else:
                update = self._update(operation)
                operation.version = await self._at_head(operation, UPDATE_ATTEMPT, update)
        except FsError as error:
            self._trace(operation, f"fails: {error.code.name} {error}")
            if error.code in (Code.SUPERSEDED, Code.INTERNAL, Code.INVALID):
                self.kernel.violation(f"client {self._number} is told {error.code.name}: {error}")
        else:
            operation.end = self.kernel.now
            self._trace(operation, f"ends as version {operation.version}")
        return operation

    def _draw(self, kind: Kind, chain: int, chunk: bytes) -> Operation:
        random = self.kernel.random
        operation = Operation(self._number, chain, chunk, kind, self.kernel.now)
        if kind is Kind.WRITE:
            value = next(self._values) * CELLS
            operation.offset = random.randrange(CELLS) if random.random() < 0.5 else 0
            end = random.randrange(operation.offset, CELLS) + 1
            operation.content = tuple(value + cell for cell in range(operation.offset, end))
            operation.length = len(operation.content)
        elif kind is Kind.REMOVE:
            self._watch.removed.add(chunk)
        elif kind is Kind.TRUNCATE:
            operation.length = random.randrange(CELLS + 1)
        return operation

    def _update(self, operation: Operation) -> Update:
        kind = _KINDS[operation.kind]
        offset = operation.offset if kind is UpdateKind.WRITE else 0
        length = 0 if kind is UpdateKind.REMOVE else operation.length
        sequence = next(self._sequence)
        return Update(operation.chunk, kind, offset, length, (), self._number, sequence)

    def _trace(self, operation: Operation, what: str) -> None:
        if self.kernel.tracing:
            details = (operation.chunk, operation.offset, operation.content, operation.length)
            self.kernel.trace(self.process.name, f"{operation.kind.value} {what}", *details)

    # As StorageClient

    async def _read(self, operation: Operation) -> tuple[int, tuple[int, ...]]:
        attempts = _Attempts(self)
        while True:
            version = self.routing.version
            try:
                return await self._read_any(operation)
            except FsError as error:
                await attempts.failed(error, version)

    async def _read_any(self, operation: Operation) -> tuple[int, tuple[int, ...]]:
        chain = self.routing.chain(operation.chain)  # type: ignore[arg-type]
        replicas = list(chain.serving)
        self.kernel.random.shuffle(replicas)
        failure = _unavailable(chain)
        while replicas:
            target = replicas.pop(0)
            message = Reading(operation.chain, operation.chunk)
            try:
                found: tuple[int, tuple[int, ...]] = await self._call(
                    target, "read", message, READ_ATTEMPT
                )
                return found
            except FsError as error:
                if not error.retry:
                    raise
                failure = error
            if failure.code is Code.CHUNK_DIRTY:
                replicas.sort(key=lambda t: t is not chain.tail)
        raise failure

    async def _at_head(self, operation: Operation, longest: float, update: Update | None) -> int:
        attempts = _Attempts(self)
        while True:
            version = self.routing.version
            try:
                chain = self.routing.chain(operation.chain)  # type: ignore[arg-type]
                if chain.head is None:
                    raise _unavailable(chain)
                if update is None:
                    await self._call(
                        chain.head, "flush", Flushing(chain.chain_id, chain.version), longest
                    )
                    return 0
                message = Updating(chain.chain_id, chain.version, update, operation.content)
                number: int = (await self._call(chain.head, "update", message, longest))[0]
                if attempts.count:
                    self.kernel.probe("update done at a later attempt")
                return number
            except FsError as error:
                if error.code is Code.NO_SPACE:
                    self.kernel.probe("client told that there is no space")
                    operation.refused = not attempts.count
                await attempts.failed(error, version)

    async def _call(self, target: ChainTarget, method: str, message: object, timeout: float) -> Any:
        name = f"node-{target.node_id}"
        return await self._network.call(self.process, name, method, message, timeout=timeout)

    # As Cluster

    async def _follow_routing(self) -> None:
        while True:
            manager = self._managers[0]
            try:
                body = (self.routing.version, POLL_SECONDS)
                routing = await self._network.call(
                    self.process, manager, "routing", body, timeout=POLL_SECONDS + 1
                )
            except FsError:
                self._managers = (*self._managers[1:], manager)
                await self.process.sleep(0.25)
                continue
            if routing is not None and routing.version > self.routing.version:
                self.routing = routing
                for future in self._news:
                    future.set(None)
                self._news.clear()

    async def refresh(self, newer_than: int, timeout: float) -> None:
        if self.routing.version > newer_than:
            return
        future: Future[None] = Future()
        self._news.append(future)
        self.process.after(timeout, lambda: future.set(None))
        await future


class _Attempts:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._until = client.process.clock() + client.deadline
        self._pause = FIRST_PAUSE
        self.count = 0

    async def failed(self, error: FsError, routing_version: int) -> None:
        if not error.retry:
            raise error
        self.count += 1
        left = self._until - self._client.process.clock()
        if left <= 0:
            raise FsError(Code.TIMED_OUT, f"gave up after {self.count}") from error
        pause = min(self._pause * self._client.kernel.random.uniform(0.5, 1.5), left)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        await self._client.refresh(routing_version, max(pause, 0.001))


def _unavailable(chain: Chain) -> FsError:
    return FsError(Code.CHAIN_UNAVAILABLE, f"no replica of chain {chain.chain_id} serves")
