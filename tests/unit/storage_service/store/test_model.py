"""Random histories against a model, with crashes and reopenings."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fireflyfs.checksum import checksums
from fireflyfs.net.messages import UpdateKind
from storage_service.store.store import ChunkStore
from tests.unit.storage_service.store.driver import (
    IDENTITY,
    Model,
    Op,
    chunk,
    crash_copy,
    opened,
    put,
    random_op,
)

_lengths = st.one_of(
    st.sampled_from([0, 1, 4096, 16383, 16384, 16385, 65536]), st.integers(0, 150_000)
)
_ops = st.builds(
    Op,
    index=st.integers(0, 2),
    kind=st.sampled_from([UpdateKind.WRITE] * 4 + list(UpdateKind)),
    offset=_lengths,
    length=_lengths,
    seed=st.integers(0, 1 << 20),
    finish=st.sampled_from(["once", "commit", "pending", "abort"]),
)
_steps = st.lists(
    st.one_of(_ops, _ops, _ops, st.sampled_from(["flush", "reopen", "crash"])), max_size=25
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_steps)
def test_the_store_is_its_model(steps: list[Op | str]) -> None:
    root = Path(tempfile.mkdtemp(prefix="store-"))
    try:
        trio.run(_play, root, steps, clock=MockClock())
    finally:
        shutil.rmtree(root)


async def _play(root: Path, steps: list[Op | str]) -> None:
    model = Model()
    directory = root / "0"
    async with trio.open_nursery() as nursery:
        store = await ChunkStore.open(directory, IDENTITY, nursery=nursery)
        for number, step in enumerate(steps):
            if isinstance(step, Op):
                await model.do(store, step)
            elif step == "flush":
                await store.flush()
            else:
                if step == "crash":
                    directory = crash_copy(directory, root / str(number + 1))
                await store.close()
                store = await ChunkStore.open(directory, IDENTITY, nursery=nursery)
            await model.check(store)
        await store.close()


@pytest.mark.parametrize("seed", range(3))
async def test_long_histories(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    model = Model()
    for round_ in range(4):
        directory = tmp_path / str(round_)
        async with opened(directory) as store:
            await model.check(store)
            for _ in range(80):
                await model.do(store, random_op(rng))
                if rng.random() < 0.1:
                    await store.flush()
            await model.check(store)
            crash_copy(directory, tmp_path / str(round_ + 1))


async def test_ranges_are_read_with_the_sums_of_their_pieces(tmp_path: Path) -> None:
    rng = random.Random(1)
    data = rng.randbytes(100_000)
    async with opened(tmp_path / "s") as store:
        await put(store, 0, 1, 0, data)
        await put(store, 0, 2, 5000, b"x" * 4000)
        data = data[:5000] + b"x" * 4000 + data[9000:]
        for _ in range(300):
            offset, length = rng.randrange(101_000), rng.choice([0, 1, 4096, rng.randrange(60_000)])
            outcome = await store.read(chunk(0), offset, length)
            assert outcome.data == data[offset : offset + length]
            assert outcome.checksums == checksums(offset, outcome.data)
            assert outcome.version == 2
