"""A manager process around the real ``State``, as ``manager.loop`` has it, and the store that
managers share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from chain_replication.manager.state import FAILURE_SECONDS, Beat, State
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import LEASE_SECONDS
from tests.simulation.kernel import Future, Kernel, Lock, Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain_replication.manager.records import Change, Table
    from fireflyfs.routing import Routing
    from tests.simulation.network import Network

T = TypeVar("T")
TICK = 0.25


class SharedTable:
    """The transactional store: whoever took over last may change it."""

    def __init__(self, kernel: Kernel, table: Table) -> None:
        self.kernel = kernel
        self.table = table
        self.term = 0
        self.delay = 0.001
        """Mean seconds of a transaction, each way."""
        self.trouble = 0.0
        """Share of transactions of which only is known that they may have happened."""
        self.on_change: Callable[[Table, Table], None] = lambda *_: None

    def take_over(self, process: Process) -> Future[tuple[int, Table]]:
        return self._transact(process, self._take_over)

    def _take_over(self) -> tuple[int, Table]:
        self.term += 1
        return self.term, self.table

    def load(self, process: Process) -> Future[Table]:
        return self._transact(process, lambda: self.table)

    def verify(self, process: Process, term: int) -> Future[None]:
        return self._transact(process, lambda: self._check_term(term))

    def _check_term(self, term: int) -> None:
        if term != self.term:
            raise FsError(Code.NOT_SERVING, "another manager has taken over")

    def save(self, process: Process, term: int, change: Change, version: int) -> Future[None]:
        def write() -> None:
            self._check_term(term)
            if self.table.version != version:
                raise FsError(Code.INTERNAL, f"{self.table.version} stored, {version} expected")
            before, self.table = self.table, self.table.applied(change)
            self.on_change(before, self.table)

        return self._transact(process, write)

    def _transact(self, process: Process, work: Callable[[], T]) -> Future[T]:
        """What was begun may be done even if the process dies meanwhile."""
        future: Future[T] = Future()
        kernel = self.kernel
        in_doubt, done = kernel.chance(self.trouble), kernel.chance(0.5)

        def act() -> None:
            error = FsError(Code.KV_UNKNOWN_RESULT, "unknown result")
            if in_doubt:
                kernel.faults["unknown commit"] += 1
            if not in_doubt or done:
                try:
                    result = work()
                except FsError as refusal:
                    error = refusal
                else:
                    if in_doubt:
                        kernel.probe("unknown commit was committed")
                    else:
                        kernel.at(self._delay(), lambda: tell(lambda: future.set(result)))
                        return
            kernel.at(self._delay(), lambda: tell(lambda: future.fail(error)))

        def tell(outcome: Callable[[], None]) -> None:
            process.after(0.0, outcome)

        kernel.at(self._delay(), act)
        return future

    def _delay(self) -> float:
        return self.kernel.random.expovariate(1 / self.delay)


class ManagerProcess:
    def __init__(self, process: Process, network: Network, shared: SharedTable) -> None:
        self.process = process
        self.kernel = process.kernel
        self._shared = shared
        self._term = 0
        self._deciding = Lock()
        self._must_reload = False
        self._verified = 0.0
        self._state: State | None = None
        self._routing: Routing | None = None
        self._published: list[Future[None]] = []
        self._opened: list[Future[None]] = []
        network.listen(process.name, self)
        process.spawn(self._run())

    async def _run(self) -> None:
        table = await self._take_over()
        now = self._verified = self.process.clock()
        self._state, self._routing = State(table, now), table.routing()
        self.kernel.trace(self.process.name, "in office, routing", table.version)
        _wake(self._opened)
        while self.process.alive:
            try:
                await self._verify()
                self._state.notice_silence(self.process.clock())
                await self._decide()
            except FsError as error:
                if error.code is Code.NOT_SERVING:
                    self.kernel.trace(self.process.name, "is deposed")
                    self.kernel.probe("a manager is deposed")
                    self.process.kill()
                    return
            await self.process.sleep(TICK)

    async def _take_over(self) -> Table:
        while True:
            try:
                self._term, table = await self._shared.take_over(self.process)
            except FsError:
                await self.process.sleep(TICK)
            else:
                return table

    async def handle(self, source: str, method: str, body: Any) -> Any:
        while self._state is None:
            future: Future[None] = Future()
            self._opened.append(future)
            await future
        if method == "heartbeat":
            return await self._heartbeat(self._state, body)
        known, wait = body
        return await self._routing_after(known, wait)

    async def _heartbeat(self, state: State, beat: Beat) -> float:
        state.heartbeat(beat, self.process.clock())
        await self._decide()
        if not state.may_renew_lease(beat.node_id):
            self.kernel.probe("a lease is withheld")
            return 0.0
        in_office = self._verified + FAILURE_SECONDS - self.process.clock()
        return max(0.0, min(LEASE_SECONDS, in_office))

    async def _routing_after(self, known: int, wait: float) -> Routing | None:
        until = self.process.clock() + wait
        while self._now_routing().version <= known:
            left = until - self.process.clock()
            if left <= 0.001:
                return None
            future: Future[None] = Future()
            self._published.append(future)
            self.process.after(left, partial(future.set, None))
            await future
        return self._now_routing()

    def _now_routing(self) -> Routing:
        assert self._routing is not None
        return self._routing

    async def _decide(self) -> None:
        state = self._state
        assert state is not None
        await self._deciding.acquire()
        try:
            await self._decide_alone(state)
        except FsError:
            self._deciding.release()
            raise
        self._deciding.release()

    async def _decide_alone(self, state: State) -> None:
        if self._must_reload:
            table = await self._shared.load(self.process)
            self._must_reload = False
            self._adopt(table, everything=True)
        change = state.evaluate(self.process.clock())
        if change:
            before = state.table
            self._must_reload = True
            await self._shared.save(self.process, self._term, change, before.version)
            self._must_reload = False
            self._adopt(before.applied(change))

    def _adopt(self, table: Table, *, everything: bool = False) -> None:
        assert self._state is not None
        self._state.adopt(table, self.process.clock(), everything=everything)
        self._routing = table.routing()
        _wake(self._published)

    async def _verify(self) -> None:
        now = self.process.clock()
        await self._shared.verify(self.process, self._term)
        self._verified = now


def _wake(waiting: list[Future[None]]) -> None:
    for future in waiting:
        future.set(None)
    waiting.clear()
