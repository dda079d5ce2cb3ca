"""kill -9 in mid-load: everything acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.unit.storage_service.store.driver import chunk, observed, opened, put

CHUNKS = 6


def update(index: int, version: int) -> tuple[int, bytes]:
    """(offset, data) of the update that makes ``version`` of a chunk."""
    rng = random.Random(index << 20 | version)
    length = rng.choice([1, 4096, 4096, 4096, 16384, 100_000])
    return rng.randrange(300_000), rng.randbytes(length)


def content(index: int, version: int) -> bytes:
    data = b""
    for number in range(1, version + 1):
        offset, piece = update(index, number)
        data += bytes(max(0, offset - len(data)))
        data = data[:offset] + piece + data[offset + len(piece) :]
    return data


async def load(directory: Path) -> None:
    """Write for ever; print a line for every acknowledged version."""

    async def work(index: int) -> None:
        state = await observed(store, index)
        if state.pending:
            await store.commit(chunk(index), state.pending, 1)
        version = max(state.version, state.pending)
        while True:
            version += 1
            offset, data = update(index, version)
            await put(store, index, version, offset, data, step=("both", "once")[version % 2])
            print(index, version, flush=True)
            if version % 50 == 0:
                await store.flush()

    async with opened(directory) as store, trio.open_nursery() as nursery:
        for index in range(CHUNKS):
            nursery.start_soon(work, index)


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    root = Path(__file__).parents[4]
    acknowledged: dict[int, int] = {}
    for count in (40, 300, 700):
        command = [sys.executable, "-m", "tests.unit.storage_service.store.test_crash"]
        process = subprocess.Popen([*command, str(directory)], cwd=root, stdout=subprocess.PIPE)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += process.stdout.readlines()
        process.stdout.close()
        assert process.wait() == -9
        for line in lines:
            if line.endswith(b"\n"):
                index, version = map(int, line.split())
                acknowledged[index] = version
        async with opened(directory) as store:
            for index, version in acknowledged.items():
                state = await observed(store, index)
                assert state.version >= version
                assert state.data == content(index, state.version)
                if state.pending:
                    assert state.pending_data == content(index, state.pending)


if __name__ == "__main__":
    trio.run(load, Path(sys.argv[1]))
else:
    pytestmark = pytest.mark.filterwarnings("error")
