"""The life of a process: run until told to stop, and an exit code that means something."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2


def run(main: Callable[[], Awaitable[None]]) -> int:
    """Run ``main`` under trio; SIGTERM and SIGINT cancel it. Returns the exit code.

    0: returned, or stopped by a signal. 2: FsError(CONFIG or INVALID). 1: anything else. An FsError
    is one line on standard error; a defect is logged with its traceback.
    """
    try:
        trio.run(_until_signal, main)
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception as error:
        return _report(error)
    return EXIT_OK


async def _until_signal(main: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            await main()
            nursery.cancel_scope.cancel()


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        logger.info("stopping", extra={"signal": signal.Signals(number).name})
        scope.cancel()


def _report(error: Exception) -> int:
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, FsError)]
    if len(known) < len(leaves):
        logger.critical("the process failed", exc_info=error)
    wrong = [leaf for leaf in known if leaf.code in (Code.CONFIG, Code.INVALID)]
    chosen = (wrong or known or leaves)[0]
    sys.stderr.write("fireflyfs: " + " ".join(str(chosen).split()) + "\n")
    return EXIT_CONFIG if wrong else EXIT_FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    """The exceptions inside nested groups, as trio's nurseries raise them."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
