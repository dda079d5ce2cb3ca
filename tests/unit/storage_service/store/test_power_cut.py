"""A power cut at any instant: whatever subset of un-synced writes reached the medium, opening finds
for every chunk a state that it had, not older than the last flush."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from storage_service.store.allocator import block_size
from storage_service.store.blocks import BlockFiles
from storage_service.store.metadata import Metadata
from tests.unit.storage_service.store.driver import Model, State, observed, opened, random_op

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from storage_service.store.record import Location

ATOM = 512


@dataclass
class Medium:
    """What the device may hold of the data files: for every atom written since its file's last
    sync, its contents since then, oldest first."""

    directory: Path
    atoms: dict[int, dict[int, list[bytes]]] = field(default_factory=dict)
    log_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of RocksDB's logs that are synced for sure."""

    def cut(self, target: Path, rng: random.Random) -> None:
        """A copy of the directory as a power cut may leave it."""
        shutil.copytree(self.directory, target)
        bias = rng.choice([0.1, 0.5, 0.9])
        for size_class, atoms in self.atoms.items():
            with (target / "blocks" / f"{block_size(size_class)}.blocks").open("r+b") as file:
                for atom, versions in atoms.items():
                    newest = rng.random() < bias
                    file.seek(atom * ATOM)
                    file.write(versions[-1] if newest else rng.choice(versions))
        logs = sorted((target / "metadata").glob("*.log"))
        size, synced = logs[-1].stat().st_size, self.log_bytes.get(logs[-1].name, 0)
        with logs[-1].open("r+b") as file:
            file.truncate(rng.choice([size, rng.randint(synced, size)]))


@pytest.fixture
def medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Medium:
    record = Medium(tmp_path / "0")
    write, sync, log_sync = BlockFiles.write, BlockFiles.sync, Metadata.sync

    def recording_write(
        self: BlockFiles, location: Location, offset: int, buffers: Sequence[memoryview]
    ) -> None:
        if self._directory.parent != record.directory:
            write(self, location, offset, buffers)
            return
        size_class, slot = location
        start = slot * block_size(size_class) + offset
        length = sum(len(buffer) for buffer in buffers)
        first, last = start // ATOM, (start + length + ATOM - 1) // ATOM
        path = record.directory / "blocks" / f"{block_size(size_class)}.blocks"
        atoms = record.atoms.setdefault(size_class, {})
        with path.open("rb") as file:
            for atom in range(first, last):
                file.seek(atom * ATOM)
                atoms.setdefault(atom, [file.read(ATOM)])
        write(self, location, offset, buffers)
        with path.open("rb") as file:
            for atom in range(first, last):
                file.seek(atom * ATOM)
                atoms[atom].append(file.read(ATOM))

    def recording_sync(self: BlockFiles, size_classes: Sequence[int]) -> None:
        sync(self, size_classes)
        if self._directory.parent == record.directory:
            for size_class in size_classes:
                record.atoms.pop(size_class, None)

    def recording_log_sync(self: Metadata) -> None:
        sizes = {p.name: p.stat().st_size for p in (record.directory / "metadata").glob("*.log")}
        log_sync(self)
        if self._path.parent == record.directory:
            record.log_bytes = sizes

    monkeypatch.setattr(BlockFiles, "write", recording_write)
    monkeypatch.setattr(BlockFiles, "sync", recording_sync)
    monkeypatch.setattr(Metadata, "sync", recording_log_sync)
    return record


@pytest.mark.parametrize("seed", range(8))
async def test_a_flushed_state_survives_and_nothing_is_invented(
    tmp_path: Path, medium: Medium, mock_clock: MockClock, seed: int
) -> None:
    # with the mock clock there are no flushes but ours
    rng = random.Random(seed)
    for life in range(3):
        medium.directory = tmp_path / str(life)
        history: list[Model] = []
        async with opened(medium.directory) as store:
            model = Model()
            for index in range(4):
                model.states[index] = await observed(store, index)
            await store.flush()
            history.append(model.copy())
            model.prepared = lambda: history.append(model.copy())  # noqa: B023
            for step in range(rng.randrange(1, 60)):
                await model.do(store, random_op(rng))
                history.append(model.copy())
                if rng.random() < 0.1:
                    history = [model.copy()]
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.flush)
                        for _ in range(rng.randrange(6)):
                            await model.do(store, random_op(rng))
                            history.append(model.copy())
                if step % 8 == 0:
                    await _check(tmp_path / "cut", medium, history, rng)
            medium.cut(tmp_path / str(life + 1), rng)
        medium.atoms.clear()
        medium.log_bytes.clear()


async def _check(target: Path, medium: Medium, history: list[Model], rng: random.Random) -> None:
    medium.cut(target, rng)
    async with opened(target) as store:
        for index in range(4):
            found = await observed(store, index)
            allowed = [model.states.get(index, State()) for model in history]
            assert found in allowed
    shutil.rmtree(target)
