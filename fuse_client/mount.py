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
from fuse_client import mountpoint
from fuse_client.operations import MountOperations

if TYPE_CHECKING:
    from fireflyfs.config import MountConfig

logger = logging.getLogger(__name__)

IDLE_TASKS = 16
MOST_TASKS = 1024
"""Requests in work at once. Each that waits for a stalled node (at most the client's deadline)
holds one task; this many programs must be stuck before others are."""
UNMOUNT_SECONDS = 10.0
"""For programs to let go and for the kernel to write back mapped pages."""
FINISH_SECONDS = 5.0


async def serve(
    config: MountConfig, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Mount and serve until somebody unmounts (returns) or this task is cancelled (unmounts).

    Starts with the mount point's path, once the mount answers.

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
            _mount(operations, place, options)
            try:
                nursery.start_soon(operations.files.report_in_background)
                nursery.start_soon(meta.keep_alive, socket.gethostname(), place)
                await _answer(place, task_status)
            finally:
                await _finish(operations, place)
                nursery.cancel_scope.cancel()


def _mount(operations: MountOperations, place: str, options: set[str]) -> None:
    try:
        pyfuse3.init(operations, place, options)
    except RuntimeError as error:
        raise FsError(Code.CONFIG, f"cannot mount on {place}: {error}") from error


async def _answer(place: str, task_status: trio.TaskStatus[str]) -> None:
    """Answer the kernel until the mount ends. Cancelled, unmount while still answering: the kernel
    may have mapped pages to write back."""
    ended = trio.Event()

    async def loop() -> None:
        try:
            with trio.CancelScope(shield=True) as scope:
                scopes.append(scope)
                await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MOST_TASKS)
        finally:
            ended.set()

    scopes: list[trio.CancelScope] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop)
        try:
            mountpoint.tune(place)
            logger.info("mounted", extra={"mountpoint": place})
            task_status.started(place)
            await ended.wait()
        finally:
            with trio.CancelScope(shield=True):
                if not ended.is_set():
                    await _unmount(place, ended)
                for scope in scopes:
                    scope.cancel()


async def _unmount(place: str, ended: trio.Event) -> None:
    """Politely; then, if programs hold it, take it out of sight, which they notice."""
    with trio.move_on_after(UNMOUNT_SECONDS):
        for arguments in (["-u"], ["-u", "-z"]):
            command = ["fusermount3", *arguments, "--", place]
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False
            )
            if done.returncode == 0:
                break
            logger.warning("unmount: %s", done.stderr.decode(errors="replace").strip())
        with trio.move_on_after(UNMOUNT_SECONDS / 2):
            await ended.wait()


async def _finish(operations: MountOperations, place: str) -> None:
    with trio.CancelScope(shield=True):
        await operations.files.finish(FINISH_SECONDS)
        pyfuse3.close(unmount=mountpoint.mounted(place) is not None)
        logger.info("unmounted", extra={"mountpoint": place})
