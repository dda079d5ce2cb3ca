"""The life of a mount: check the place, mount, answer the kernel, unmount cleanly."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import pyfuse3
import trio

from fireflyfs.client.cluster import open_cluster
from fireflyfs.client.meta import MetaClient
from fireflyfs.client.storage import StorageClient
from fireflyfs.errors import Code, FsError
from fireflyfs.supervisor.mountpoint import mounted_at, unmount
from fuse_client import mountpoint
from fuse_client.operations import MountOperations

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.config import MountConfig

logger = logging.getLogger(__name__)

IDLE_TASKS = 16
MOST_TASKS = 1024
"""Requests in work at once. Each that waits for a stalled node (at most the client's deadline)
holds one task; this many programs must be stuck before others are."""
LET_GO_SECONDS = 5.0
"""For programs that hold a mount which was taken out of sight."""
FINISH_SECONDS = 5.0
"""For the last reports to the metadata server."""


async def serve(
    config: MountConfig, *, task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED
) -> None:
    """Mount and serve until somebody unmounts (returns) or this task is cancelled (unmounts).

    ``started`` (the mount point) once the mount answers.

    Raises:
        FsError: ``CONFIG`` for a mount point that will not do; why the cluster cannot be reached.
    """
    place = mountpoint.check(config.mountpoint)
    options = mountpoint.options(config.allow_other)
    async with open_cluster(config.cluster) as cluster:
        meta = MetaClient(cluster)
        operations = MountOperations(meta, StorageClient(cluster))
        await operations.files.refresh(pyfuse3.ROOT_INODE)  # a file system is there
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                meta.keep_alive,
                socket.gethostname(),
                str(place),
                operations.files.renew_sessions,
            )
            await serve_kernel(operations, place, options, task_status)
            nursery.cancel_scope.cancel()


async def serve_kernel(
    operations: MountOperations,
    place: Path,
    options: set[str],
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """From mount to unmount. Cancelled, it unmounts while it still answers, for the kernel may have
    mapped pages to write back.

    Raises:
        FsError: ``CONFIG`` when the kernel refuses the mount.
    """
    try:
        pyfuse3.init(operations, str(place), options)
    except RuntimeError as error:
        raise FsError(Code.CONFIG, f"cannot mount on {place}: {error}") from error
    ended = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            answering = trio.CancelScope(shield=True)
            nursery.start_soon(_answer, answering, ended)
            nursery.start_soon(operations.files.report_in_background)
            try:
                await trio.to_thread.run_sync(mountpoint.tune, place)
                logger.info("mounted", extra={"mountpoint": place})
                task_status.started(place)
                await ended.wait()
            finally:
                await _unmount(place, ended)
                answering.cancel()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await operations.files.finish(FINISH_SECONDS)
        pyfuse3.close(unmount=mounted_at(place) is not None)
        logger.info("unmounted", extra={"mountpoint": place})


async def _answer(scope: trio.CancelScope, ended: trio.Event) -> None:
    try:
        with scope:
            await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MOST_TASKS)
    finally:
        ended.set()


async def _unmount(place: Path, ended: trio.Event) -> None:
    """Politely; or, if programs hold it, out of sight, which leaves them a moment to finish."""
    if ended.is_set():
        return
    with trio.CancelScope(shield=True):
        try:
            await trio.to_thread.run_sync(unmount, place)
        except FsError as error:
            logger.warning("%s; taking it out of sight", error)
            await trio.to_thread.run_sync(lambda: unmount(place, lazy=True))
        with trio.move_on_after(LET_GO_SECONDS):
            await ended.wait()
