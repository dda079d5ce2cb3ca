"""Processes that are found, kept and stopped: with real ones, that only sleep."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.supervisor import processes
from fireflyfs.supervisor.directory import ProcessSpec
from fireflyfs.supervisor.keeper import Keeper, Record, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def spec_of(directory: Path, program: str) -> ProcessSpec:
    config = directory / "thing.toml"
    config.write_text("")
    command = (sys.executable, "-c", program, "--config", str(config))
    return ProcessSpec("thing", "thing", config, command, directory / "thing.log")


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[ProcessSpec]:
    made = spec_of(tmp_path, SLEEP)
    yield made
    running = processes.find(made.config)
    if running is not None:
        running.send(signal.SIGKILL)
        running.close()


async def found(spec: ProcessSpec, but: int = 0) -> int:
    """The pid of the process, once there is one that is not ``but``."""
    with trio.fail_after(10):
        while True:
            running = processes.find(spec.config)
            if running is not None:
                running.close()
                if running.pid != but:
                    return running.pid
            await trio.sleep(0.01)


async def ignores_sigterm(pid: int) -> None:
    bit = 1 << (signal.SIGTERM - 1)
    while True:
        status = (processes.PROC / str(pid) / "status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
        if int(ignored.split()[1], 16) & bit:
            return
        await trio.sleep(0.01)


async def recorded(file: Path, pid: int) -> Record:
    with trio.fail_after(10):
        while True:
            record = read_record(file)
            if record is not None and record.pid == pid:
                return record
            await trio.sleep(0.01)


async def test_a_killed_process_is_started_again(
    spec: ProcessSpec, tmp_path: Path, nursery: trio.Nursery
) -> None:
    nursery.start_soon(Keeper(spec, tmp_path).keep)
    first = await found(spec)
    record = await recorded(tmp_path / "thing.json", first)
    assert record.alive
    assert record.restarts == 0
    os.kill(first, signal.SIGKILL)
    second = await found(spec, but=first)
    record = await recorded(tmp_path / "thing.json", second)
    assert (record.restarts, record.failures) == (1, 1)
    assert record.last_exit == -signal.SIGKILL


async def test_a_new_supervisor_adopts_what_runs(spec: ProcessSpec, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Keeper(spec, tmp_path).keep)
        first = await found(spec)
        await recorded(tmp_path / "thing.json", first)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Keeper(spec, tmp_path).keep)
        record = await recorded(tmp_path / "thing.json", first)
        assert record.restarts == 0
        os.kill(first, signal.SIGKILL)
        assert await found(spec, but=first) != first
        nursery.cancel_scope.cancel()


async def test_restarts_back_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    delays: list[float] = []
    real_sleep = trio.sleep

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await real_sleep(0 if len(delays) < 8 else 60)

    monkeypatch.setattr("fireflyfs.supervisor.keeper.trio.sleep", sleep)
    nursery.start_soon(Keeper(spec_of(tmp_path, "raise SystemExit(2)"), tmp_path).keep)
    with trio.fail_after(20):
        while len(delays) < 8:
            await real_sleep(0.01)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    record = read_record(tmp_path / "thing.json")
    assert record is not None
    assert (record.failures, record.last_exit, record.alive) == (8, 2, False)


async def test_a_mount_that_is_not_configured_any_more_is_not_started_again(
    spec: ProcessSpec, tmp_path: Path
) -> None:
    spec = dataclasses.replace(spec, mountpoint=tmp_path / "mnt")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Keeper(spec, tmp_path).keep)
            pid = await found(spec)
            spec.config.unlink()
            os.kill(pid, signal.SIGKILL)
    assert not (tmp_path / "thing.json").exists()


async def test_who_does_not_end_is_killed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, STUBBORN)
    running = processes.start(spec.command, spec.log, tmp_path)
    with trio.fail_after(10):
        await ignores_sigterm(running.pid)
        assert not await running.stop(grace=0.1)
    running.close()
    assert processes.find(spec.config) is None


def test_a_record_of_another_life_is_not_believed(tmp_path: Path) -> None:
    pid = os.getpid()
    real = Record("x", "x", pid, processes.started_at(pid))
    assert real.alive
    assert not Record("x", "x", pid, real.start_time + 1).alive
    assert not Record("x", "x").alive
    for text in ("", "[]", '{"name": 1, "bogus": 2}'):
        (tmp_path / "x.json").write_text(text)
        assert read_record(tmp_path / "x.json") is None
