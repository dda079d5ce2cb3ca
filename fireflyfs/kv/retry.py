"""The one retry loop of transactions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

import trio

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.base import Engine, Transaction

T = TypeVar("T")

RETRIED = frozenset(
    (Code.KV_CONFLICT, Code.KV_TOO_OLD, Code.KV_UNKNOWN_RESULT, Code.KV_UNAVAILABLE)
)
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = {Code.KV_CONFLICT: 0.016}
"""Who loses a race for a busy key must come back often to win one; what is down may take longer."""
_LONGEST_PAUSE_ELSE = 0.25


async def transact(
    engine: Engine,
    fn: Callable[[Transaction], Awaitable[T]],
    *,
    timeout: float = 10.0,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Run ``fn`` in a transaction and commit it, again until that succeeds.

    ``fn`` runs once for each attempt and must have no effect but on its transaction. It must be
    idempotent: after an unknown result it runs again although its first run may have been committed
    (write a record of the result in the same transaction and look for it first, if it is not so by
    nature). ``fn`` must not commit.

    Args:
        timeout: Seconds after which no new attempt is begun.
        jitter: Uniform numbers in [0, 1): the part of each pause (at most 1 ms at first, doubled up
            to 16 ms for conflicts, 250 ms else) that is really waited.

    Errors:
        FsError: What ``fn`` raises and is not to be retried, at once. At the timeout the code of
        the last attempt, or ``KV_UNKNOWN_RESULT`` if the result of any attempt is unknown.
    """
    deadline = trio.current_time() + timeout
    longest = _FIRST_PAUSE
    attempts = 0
    unknown = False
    while True:
        await trio.lowlevel.checkpoint()
        attempts += 1
        transaction = engine.transaction()
        try:
            result = await fn(transaction)
            await transaction.commit()
            return result
        except FsError as error:
            if error.code not in RETRIED:
                raise
            unknown |= error.code is Code.KV_UNKNOWN_RESULT
            failure = error
        finally:
            transaction.cancel()
        pause = longest * jitter()
        if trio.current_time() + pause >= deadline:
            code = Code.KV_UNKNOWN_RESULT if unknown else failure.code
            raise FsError(
                code, f"transaction given up after {attempts} attempts in {timeout:g} s"
            ) from failure
        await trio.sleep(pause)
        longest = min(2 * longest, _LONGEST_PAUSE.get(failure.code, _LONGEST_PAUSE_ELSE))
