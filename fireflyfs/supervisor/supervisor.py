"""The supervisor: starts the processes of one cluster on one machine and keeps them running.

It holds a lock on the directory, so that there is one. Killing it stops nothing: the next one finds
the processes by their command lines and goes on. SIGTERM ends the cluster in order: mounts (they
write back), metadata, storage, manager. SIGHUP: the set of mounts has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.rpc import cluster_pb2
from fireflyfs.supervisor import mountpoint, processes, view
from fireflyfs.supervisor.directory import host_file, write
from fireflyfs.supervisor.keeper import SUPERVISOR, Keeper, Record, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fireflyfs.supervisor.directory import ClusterDirectory, ProcessSpec
    from fireflyfs.supervisor.processes import Running

logger = logging.getLogger(__name__)

RECORD = f"{SUPERVISOR}.json"
STOP_ORDER = ("mount", "meta", "storage", "manager")
STOP_GRACE = 20.0
"""Seconds between SIGTERM and SIGKILL: a mount writes back first."""
ASK_INTERVAL = 0.25


@contextlib.contextmanager
def locked(directory: ClusterDirectory) -> Iterator[None]:
    """Be the only supervisor. Raises FsError(CONFIG) if there is one already."""
    with open(_lock_file(directory), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another supervisor keeps {directory.root}"
            raise FsError(Code.CONFIG, message) from None
        yield


def find(directory: ClusterDirectory) -> Running | None:
    """The supervisor's process, if one lives."""
    return processes.find(host_file(directory.root))


def notify(directory: ClusterDirectory) -> None:
    """Tell the supervisor that ``config/mounts`` has changed.

    One that has not recorded itself yet would not know the signal, and reads the files anyway.
    """
    record = read_record(directory.run / RECORD)
    if record is not None and record.alive:
        os.kill(record.pid, signal.SIGHUP)


class Supervisor:
    """Lives for as long as the cluster does."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory
        self._mounts: dict[Path, tuple[ProcessSpec, trio.CancelScope]] = {}

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then everything is stopped before it returns.

        A defect in here leaves the processes alone: they serve on without a supervisor.
        """
        tell, told = trio.open_memory_channel[None](1)
        with trio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            self._record()
            async with trio.open_nursery() as nursery:
                for spec in self._directory.specs():
                    nursery.start_soon(Keeper(spec, self._directory.run).keep)
                nursery.start_soon(self._keep_mounts, nursery, told)
                async for number in signals:
                    if number != signal.SIGHUP:
                        break
                    with contextlib.suppress(trio.WouldBlock):  # told already
                        tell.send_nowait(None)
                nursery.cancel_scope.cancel()
            logger.info("stopping the cluster")
            await stop_all(self._directory)
            (self._directory.run / RECORD).unlink(missing_ok=True)

    def _record(self) -> None:
        pid = os.getpid()
        record = Record(SUPERVISOR, SUPERVISOR, pid, processes.started_at(pid), time.time())
        write(self._directory.run / RECORD, json.dumps(asdict(record)))

    async def _keep_mounts(
        self, nursery: trio.Nursery, told: trio.MemoryReceiveChannel[None]
    ) -> None:
        await self._lay_chains()
        await self._reconcile(nursery)
        async for _ in told:
            await self._reconcile(nursery)

    async def _lay_chains(self) -> None:
        """Until a mount can work. Chains are laid once, when every storage node is there."""
        while True:
            try:
                status = await view.fetch_status(self._directory)
                if not status.chains and self._all_storage(status):
                    await view.create_chains(self._directory)
                elif view.can_serve(status):
                    return
            except FsError as error:
                if not error.retry:
                    logger.warning("the manager refuses", extra={"error": error})
            await trio.sleep(ASK_INTERVAL)

    def _all_storage(self, status: cluster_pb2.GetStatusReply) -> bool:
        nodes = [n.node for n in status.nodes if n.node.role == cluster_pb2.STORAGE]
        return len(nodes) >= self._directory.host.nodes and all(n.alive for n in nodes)

    async def _reconcile(self, nursery: trio.Nursery) -> None:
        """Make the mounts that are kept those that the directory names."""
        try:
            wanted = {spec.config: spec for spec in self._directory.mount_specs()}
        except FsError as error:
            logger.warning("mounts stay as they are", extra={"error": error})
            return
        for file, (spec, scope) in list(self._mounts.items()):
            if wanted.get(file) != spec:
                del self._mounts[file]
                scope.cancel()
                await stop_process(spec)
                if file not in wanted:
                    (self._directory.run / f"{spec.name}.json").unlink(missing_ok=True)
        for file, spec in wanted.items():
            if file not in self._mounts:
                nursery.start_soon(self._keep_mount, spec)

    async def _keep_mount(self, spec: ProcessSpec) -> None:
        with trio.CancelScope() as scope:
            self._mounts[spec.config] = spec, scope
            await Keeper(spec, self._directory.run).keep()
        if self._mounts.get(spec.config) == (spec, scope):
            del self._mounts[spec.config]


async def stop_all(directory: ClusterDirectory) -> None:
    """Stop what runs, in order, whoever started it; nothing of it runs or is mounted after."""
    specs = directory.specs()
    with contextlib.suppress(FsError):  # a broken file in config/mounts must not keep us up
        specs += directory.mount_specs()
    for role in STOP_ORDER:
        async with trio.open_nursery() as nursery:
            for spec in specs:
                if spec.role == role:
                    nursery.start_soon(stop_process, spec)
    for spec in specs:
        (directory.run / f"{spec.name}.json").unlink(missing_ok=True)
    if directory.host.sockets != str(directory.run):  # a place outside, made again by the next up
        shutil.rmtree(directory.host.sockets, ignore_errors=True)


async def stop_process(spec: ProcessSpec) -> None:
    running = processes.find(spec.config)
    if running is not None:
        try:
            if not await running.stop(STOP_GRACE):
                logger.warning("had to be killed", extra={"child": spec.name})
        finally:
            running.close()
    if spec.mountpoint is not None:
        try:
            await trio.to_thread.run_sync(mountpoint.detach, spec.mountpoint)
        except FsError as error:
            logger.warning("stays mounted", extra={"error": error})


def _lock_file(directory: ClusterDirectory) -> Path:
    return directory.run / "supervisor.lock"
