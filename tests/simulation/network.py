"""A network that delays, loses and reorders requests, and cuts hosts off, one way or both.

A request goes to the process that had the name when it was sent (a connection does not outlive
either end), and is answered at most once. Whoever calls learns the answer, UNREACHABLE (refused, or
the connection broke: the request may have been executed), or TIMED_OUT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fireflyfs.errors import Code, FsError
from tests.simulation.kernel import Future

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.kernel import Kernel, Process


class Server(Protocol):
    process: Process

    async def handle(self, source: str, method: str, body: Any) -> Any:
        """Raises FsError to refuse."""
        ...


ORDERED = "heartbeat"
"""Which start of a node is its last, the manager tells by the order in which it hears them: a word
of a dead process does not come after the first one of the next. (Connections begin with a
handshake, so it would have to lie unread in a socket for two round trips of the next process.)"""


@dataclass(slots=True)
class Weather:
    """How the network behaves at present."""

    delay: float = 0.0005
    """Mean, seconds, of most messages."""
    straggle: float = 0.0
    """Share of messages that take up to ``straggler`` seconds."""
    straggler: float = 2.0
    drop: float = 0.0
    late: float = 0.0
    """Share of requests whose connection breaks, and which are executed long after: beside or after
    their own repeat."""
    reset: float = 0.0
    """Share of requests whose connection breaks while they wait for the answer."""


class Network:
    def __init__(self, kernel: Kernel, weather: Weather) -> None:
        self.kernel = kernel
        self.weather = weather
        self.cuts: set[tuple[str, str]] = set()
        """(from, to): nothing gets through."""
        self._servers: dict[str, Server] = {}

    def listen(self, name: str, server: Server) -> None:
        self._servers[name] = server

    def answers(self, name: str) -> bool:
        server = self._servers.get(name)
        return server is not None and server.process.alive

    def names(self) -> list[str]:
        return list(self._servers)

    def call(
        self, source: Process, to: str, method: str, body: Any, *, timeout: float
    ) -> Future[Any]:
        answer: Future[Any] = Future()
        source.bound(answer, timeout, f"{method} at {to}")
        server = self._servers.get(to)
        kernel, weather = self.kernel, self.weather
        late = 0.0
        if method != ORDERED and kernel.chance(weather.late):
            kernel.faults["late"] += 1
            late = kernel.random.random() * weather.straggler
        if late or kernel.chance(weather.reset):
            kernel.faults["reset"] += 1
            broken = FsError(Code.UNREACHABLE, f"{to}: connection lost")
            source.after(kernel.random.expovariate(1 / weather.delay), lambda: answer.fail(broken))
        self._carry(
            source.name, to, lambda: self._arrive(source, to, server, method, body, answer), late
        )
        return answer

    def _carry(self, source: str, to: str, deliver: Callable[[], None], later: float = 0.0) -> None:
        kernel, weather = self.kernel, self.weather
        if (source, to) in self.cuts:
            return
        if kernel.chance(weather.drop):
            kernel.faults["dropped"] += 1
            return
        delay = kernel.random.expovariate(1 / weather.delay) + later
        if kernel.chance(weather.straggle):
            kernel.faults["delayed"] += 1
            delay += kernel.random.random() * weather.straggler
        kernel.at(delay, deliver)

    def _arrive(
        self,
        source: Process,
        to: str,
        server: Server | None,
        method: str,
        body: Any,
        answer: Future[Any],
    ) -> None:
        if method == ORDERED and not source.alive:
            return
        if server is None or not server.process.alive or self._servers[to] is not server:
            refused = FsError(Code.UNREACHABLE, f"{to}: connection refused")
            self._carry(to, source.name, lambda: _tell(source, lambda: answer.fail(refused)))
            return
        process = server.process

        async def serve() -> None:
            try:
                reply = await server.handle(source.name, method, body)
            except FsError as error:
                failure = FsError(error.code, error.message)
                self._carry(to, source.name, lambda: _tell(source, lambda: answer.fail(failure)))
            else:
                self._carry(to, source.name, lambda: _tell(source, lambda: answer.set(reply)))

        process.after(0.0, lambda: _start(process, serve))


def _start(process: Process, serve: Callable[[], Any]) -> None:
    process.spawn(serve())


def _tell(source: Process, outcome: Callable[[], None]) -> None:
    source.after(0.0, outcome)
