"""The engine in memory: the suite, and its faults."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.memory import Faults, MemoryEngine
from fireflyfs.kv.retry import transact
from tests.conformance.kv_model import replay, run_interleaved
from tests.conformance.kv_suite import KvSuite, content, put, value_of

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine, Transaction


class TestMemory(KvSuite):
    @pytest.fixture
    async def engine(self) -> Engine:
        return MemoryEngine()

    @pytest.mark.parametrize("seed", range(30))
    async def test_random_transactions_are_serializable(self, engine: Engine, seed: int) -> None:
        rng = random.Random(seed)
        committed = await run_interleaved(engine, rng, 60)
        assert await content(engine) == replay(committed)
        assert len(committed) > 15


async def test_injected_conflicts_are_not_committed() -> None:
    engine = MemoryEngine(faults=Faults(conflict=1.0))
    tr = engine.transaction()
    tr.set(b"k", b"")
    with pytest.raises(FsError) as caught:
        await tr.commit()
    assert caught.value.code is Code.KV_CONFLICT
    assert engine.read(b"k", engine.version) is None


async def test_unknown_results_have_either_outcome() -> None:
    engine = MemoryEngine(random.Random(1), Faults(unknown=1.0))
    happened = 0
    for number in range(100):
        tr = engine.transaction()
        tr.set(b"%d" % number, b"")
        with pytest.raises(FsError) as caught:
            await tr.commit()
        assert caught.value.code is Code.KV_UNKNOWN_RESULT
        happened += engine.read(b"%d" % number, engine.version) is not None
    assert 20 < happened < 80


@pytest.mark.parametrize("seed", range(5))
async def test_idempotent_increments_survive_all_faults(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    engine = MemoryEngine(random.Random(seed), Faults(conflict=0.2, unknown=0.2, delay=0.05))

    async def worker(name: int) -> None:
        for number in range(5):
            record = b"done/%d/%d" % (name, number)

            async def increment(tr: Transaction, record: bytes = record) -> None:
                if await tr.get(record) is not None:
                    return
                value = int(await tr.get(b"n") or b"0")
                tr.set(b"n", b"%d" % (value + 1))
                tr.set(record, b"")

            await transact(engine, increment, timeout=1000, jitter=random.Random(seed).random)

    async with trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(worker, name)
    engine.faults = Faults()
    assert await value_of(engine, b"n") == b"20"


async def test_old_versions_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    engine = MemoryEngine()
    for number in range(50):
        await put(engine, k=b"%d" % number, **{f"gone{number}": b""})
        await transact(engine, _clear)
        await trio.sleep(1)
    await put(engine, k=b"last")
    assert sum(len(history) for history in engine._history.values()) < 40
    assert await content(engine) == {b"k": b"last"}


async def _clear(tr: Transaction) -> None:
    tr.clear_range(b"gone", b"gonf")
