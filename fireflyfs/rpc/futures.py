"""The one crossing between trio and gRPC's threads, in both directions."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, TypeVar

import trio

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

T = TypeVar("T")


async def wait_for(call: grpc.Future[T]) -> T:
    """The result of a gRPC call; cancelling the wait cancels the call. Raises what it raises."""
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    def wake(_: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    call.add_done_callback(wake)
    try:
        await done.wait()
    finally:
        call.cancel()  # does nothing to a call that is done
    return call.result()


class Gate:
    """Lets gRPC's threads run async functions in this trio run, until it is closed."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scopes: set[trio.CancelScope] = set()
        self._is_closed = False

    def call(
        self,
        function: Callable[[], Awaitable[T]],
        timeout: float | None,
        on_cancel: Callable[[Callable[[], None]], object],
    ) -> T:
        """Run ``function`` in trio from another thread; ``timeout`` in seconds.

        ``on_cancel`` is given a function that cancels the run from any thread. Raises FsError:
        TIMED_OUT, CANCELLED, or what ``function`` raised.
        """
        scope = trio.CancelScope()
        on_cancel(lambda: self._cancel_soon(scope))
        try:
            return trio.from_thread.run(self._run, function, timeout, scope, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise FsError(Code.CANCELLED, "the server is stopping") from None

    def close(self) -> None:
        """Cancel what runs and let nothing in any more."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()

    async def _run(
        self, function: Callable[[], Awaitable[T]], timeout: float | None, scope: trio.CancelScope
    ) -> T:
        if self._is_closed:
            raise FsError(Code.CANCELLED, "the server is stopping")
        seconds = math.inf if timeout is None else timeout
        self._scopes.add(scope)
        try:
            with scope, trio.fail_after(seconds):
                return await function()
        except trio.TooSlowError:
            raise FsError(Code.TIMED_OUT, "the request took too long") from None
        finally:
            self._scopes.discard(scope)
        raise FsError(Code.CANCELLED, "the call was cancelled")

    def _cancel_soon(self, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(scope.cancel)


async def run_in_thread(function: Callable[[], object]) -> None:
    """Run a blocking function to its end, even when this task is cancelled; not counted among the
    process's threads, for a server must be able to stop while they are all busy."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(function, limiter=trio.CapacityLimiter(1))
