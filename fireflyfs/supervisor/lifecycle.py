"""The life of a cluster on one machine as ``up`` and ``down`` see it: start, wait, stop."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from fireflyfs import config
from fireflyfs.config import ManagerConfig, MetaConfig, StorageConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address
from fireflyfs.supervisor import mountpoint, ports, processes, supervisor, view
from fireflyfs.supervisor.directory import command_line, host_file
from fireflyfs.supervisor.keeper import Record, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fireflyfs.supervisor.directory import ClusterDirectory, ProcessSpec
    from fireflyfs.supervisor.view import View

POLL_SECONDS = 0.1
HOPELESS_FAILURES = 3
"""A process that refuses its configuration so often in a row will not change its mind."""
EXIT_CONFIG = 2
DOWN_SECONDS = 60.0
_CONFIGS: dict[str, type[ManagerConfig | MetaConfig | StorageConfig]] = {
    "manager": ManagerConfig,
    "meta": MetaConfig,
    "storage": StorageConfig,
}


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time: the second waits. The lock is the directory itself, so
    that it leaves nothing behind; where there is none yet, its parent."""
    descriptor = os.open(next(p for p in (root, *root.parents) if p.is_dir()), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_ports(directory: ClusterDirectory) -> None:
    """Raises FsError(CONFIG), naming the port, if a server that must start now could not listen."""
    for spec in directory.specs():
        running = processes.find(spec.config)
        if running is not None:
            running.close()
            continue
        loaded = config.load(spec.config, _CONFIGS[spec.role])
        listen = [Address.parse(text) for text in loaded.listen]
        wanted = [(a.host, a.port) for a in listen if a.scheme == "tcp"]
        if not isinstance(loaded, StorageConfig):
            grpc = Address.parse(f"tcp://{loaded.grpc}")
            wanted.append((grpc.host, grpc.port))
        for host, port in wanted:
            if port and not ports.is_free(port, host):
                raise FsError(
                    Code.CONFIG,
                    f"port {port} of {spec.name} is in use by another program: "
                    f"stop that, or change the port in {spec.config}",
                )


def start(directory: ClusterDirectory) -> None:
    """Start the supervisor, detached; the processes are its to start. Raises FsError, OSError."""
    directory.prepare()
    check_ports(directory)
    command = command_line("supervise", "--config", str(host_file(directory.root)))
    processes.start(command, directory.logs / "supervisor.log", directory.logs).close()


async def wait_until_whole(
    directory: ClusterDirectory, seconds: float, tell: Callable[[str], None]
) -> View:
    """Until every chain serves in full and every mount answers.

    ``tell`` hears what is still missing. Raises FsError: CONFIG or INTERNAL if a process cannot
    start, with the last line of its log; TIMED_OUT after ``seconds``.
    """
    missing, failing = "the supervisor", ""
    with trio.move_on_after(seconds):
        await _wait_for_supervisor(directory)
        while True:
            seen = await view.look(directory)
            missing = seen.waits_for()
            if not missing:
                return seen
            tell(missing)
            failing = _failing(directory, seen.records)
            await trio.sleep(POLL_SECONDS)
    raise FsError(
        Code.TIMED_OUT,
        f"not whole after {seconds:.0f} s, still waiting for {missing}; {failing}"
        f"it goes on: fireflyfs status --dir {directory.root}; logs are in {directory.logs}",
    )


async def _wait_for_supervisor(directory: ClusterDirectory) -> None:
    """Until it has recorded itself. Raises FsError(INTERNAL) if it ends before."""
    record_file = directory.run / supervisor.RECORD
    while True:
        record = read_record(record_file)
        if record is not None and record.alive:
            return
        running = supervisor.find(directory)
        if running is None:
            last = last_line(directory.logs / "supervisor.log")
            raise FsError(Code.INTERNAL, f"the supervisor does not start: {last}")
        running.close()
        await trio.sleep(POLL_SECONDS)


def _failing(directory: ClusterDirectory, records: list[Record]) -> str:
    """Which processes cannot stay alive, and the last line of their logs; empty if all can.

    Raises FsError: CONFIG for one that will not change its mind, INTERNAL without a supervisor.
    """
    running = supervisor.find(directory)
    if running is None:
        last = last_line(directory.logs / "supervisor.log")
        raise FsError(Code.INTERNAL, f"the supervisor has ended: {last}")
    running.close()
    text = ""
    for record in records:
        if record.failures < HOPELESS_FAILURES:
            continue
        log = directory.logs / f"{record.name}.log"
        if record.last_exit == EXIT_CONFIG:
            message = f"{record.name} does not start: {last_line(log)} (log: {log})"
            raise FsError(Code.CONFIG, message)
        text += f"{record.name} keeps failing: {last_line(log)}; "
    return text


def last_line(log: Path) -> str:
    """The last line that says something; a stand-in if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 8192))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        lines = []
    said = (line.strip().removeprefix("fireflyfs: ") for line in reversed(lines))
    return next((line for line in said if line), f"{log} is empty")


async def stop(directory: ClusterDirectory) -> bool:
    """Stop and unmount everything; True if there was anything. Raises FsError(TIMED_OUT)."""
    running = supervisor.find(directory)
    worked = running is not None
    if running is not None:
        try:
            await running.stop(DOWN_SECONDS)
        finally:
            running.close()
    # Whatever it left: it may have been killed long ago, or just now.
    leftovers = _leftovers(directory)
    if leftovers:
        await supervisor.stop_all(directory)
        left = _leftovers(directory)
        if left:
            raise FsError(Code.TIMED_OUT, f"{left[0].name} does not end")
    (directory.run / supervisor.RECORD).unlink(missing_ok=True)
    return worked or bool(leftovers)


def _leftovers(directory: ClusterDirectory) -> list[ProcessSpec]:
    left = []
    for spec in [*directory.specs(), *directory.mount_specs()]:
        running = processes.find(spec.config)
        if running is not None:
            running.close()
            left.append(spec)
        elif spec.mountpoint is not None:
            mount = mountpoint.mounted_at(spec.mountpoint)
            if mount is not None and mount.is_ours:
                left.append(spec)
    return left
