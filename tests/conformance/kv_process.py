"""A process of its own that writes to an embedded store: ``DIRECTORY count N`` or ``... fill``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from fireflyfs.kv.open import open_engine
from fireflyfs.kv.retry import transact

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine, Transaction


async def count(engine: Engine, times: int) -> None:
    """Add one to ``n``, so many times, by read and write."""

    async def increment(tr: Transaction) -> None:
        tr.set(b"n", b"%d" % (int(await tr.get(b"n") or b"0") + 1))

    for _ in range(times):
        await transact(engine, increment, timeout=60)


async def fill(engine: Engine) -> None:
    """Set ``k0``, ``k1``... and a running total for ever; print each number once acknowledged."""
    number = 0
    while True:

        async def write(tr: Transaction, number: int = number) -> None:
            total = int(await tr.get(b"total") or b"0")
            tr.set(b"total", b"%d" % (total + 1))
            tr.set(b"k%d" % number, bytes(2000))

        await transact(engine, write)
        print(number, flush=True)
        number += 1


async def main(arguments: list[str]) -> None:
    directory, task, *rest = arguments
    engine = await open_engine(f"embedded:{directory}")
    if task == "count":
        await count(engine, int(rest[0]))
    else:
        await fill(engine)
    await engine.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
