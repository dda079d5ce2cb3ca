"""The retry loop, and the choice of an engine by its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.memory import Faults, MemoryEngine
from fireflyfs.kv.open import open_engine
from fireflyfs.kv.retry import RETRIED, transact

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.kv.base import Transaction


@pytest.mark.parametrize("code", sorted(RETRIED))
async def test_retries_what_may_succeed(code: Code, autojump_clock: trio.testing.MockClock) -> None:
    engine = MemoryEngine()
    seen: list[Transaction] = []

    async def fn(tr: Transaction) -> str:
        seen.append(tr)
        tr.set(b"k%d" % len(seen), b"")
        if len(seen) < 4:
            raise FsError(code, "not yet")
        return "done"

    assert await transact(engine, fn) == "done"
    assert len(set(seen)) == 4
    assert [engine.read(b"k%d" % n, engine.version) for n in range(1, 5)] == [None] * 3 + [b""]


async def test_other_errors_go_through_at_once_and_cancel() -> None:
    engine = MemoryEngine()
    attempts: list[Transaction] = []

    async def fn(tr: Transaction) -> None:
        attempts.append(tr)
        tr.set(b"k", b"")
        raise FsError(Code.NOT_FOUND, "no such thing")

    with pytest.raises(FsError, match="no such thing"):
        await transact(engine, fn)
    assert len(attempts) == 1
    with pytest.raises(FsError) as caught:
        await attempts[0].commit()
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (Faults(conflict=1.0), Code.KV_CONFLICT),
        (Faults(unknown=1.0), Code.KV_UNKNOWN_RESULT),
        (Faults(conflict=0.5, unknown=1.0), Code.KV_UNKNOWN_RESULT),
    ],
)
async def test_gives_up_at_the_timeout(
    faults: Faults, code: Code, autojump_clock: trio.testing.MockClock
) -> None:
    engine = MemoryEngine(faults=faults)

    async def fn(tr: Transaction) -> None:
        tr.set(b"k", b"")

    begun = trio.current_time()
    with pytest.raises(FsError, match="given up after") as caught:
        await transact(engine, fn, timeout=3.0)
    assert caught.value.code is code
    assert 2.0 < trio.current_time() - begun <= 3.0


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:x", "embedded:", "embedded:a/b", "fdb", "sql:/x"]
)
async def test_unknown_engine_is_refused(url: str) -> None:
    with pytest.raises(FsError, match="the engines are") as caught:
        await open_engine(url)
    assert caught.value.code is Code.CONFIG


async def test_open_by_address(tmp_path: Path) -> None:
    for url in ("memory:", f"embedded:{tmp_path}/kv"):
        engine = await open_engine(url)
        tr = engine.transaction()
        tr.set(b"k", b"v")
        await tr.commit()
        await engine.close()
