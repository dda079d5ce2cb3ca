"""``fireflyfs mount`` and ``umount``: more mounts of a cluster, here and on other hosts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import trio
import typer

from fireflyfs import config
from fireflyfs.cli import preflight, serve
from fireflyfs.cli.options import JsonOption  # noqa: TC001  typer reads it at run time
from fireflyfs.cli.output import print_json
from fireflyfs.config import ClusterConfig, MountConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.supervisor import lifecycle, mountpoint, processes, supervisor
from fireflyfs.supervisor.directory import (
    MAIN_MOUNT,
    ClusterDirectory,
    allows_others,
    command_line,
    private_directory,
    write,
)

STATE_DIRECTORY = Path.home() / ".local" / "state" / "fireflyfs"
"""Configurations and logs of mounts that no supervisor on this host keeps."""
POLL_SECONDS = 0.05
_HIDDEN = ".removed"


def register(app: typer.Typer) -> None:
    app.command("mount")(mount)
    app.command("umount")(umount)


def mount(
    cluster: Annotated[Path, typer.Argument(help="The cluster's directory, or its cluster.toml.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An empty directory.")],
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve here until unmounted or interrupted.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is mounted.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Mount a cluster once more; in the background, once it is mounted."""
    preflight.check_fuse()
    point = mountpoint.absolute(directory)
    opened = ClusterDirectory.open(cluster) if cluster.is_dir() else None
    mountpoint.check_free(point, keep_visible=[opened.root] if opened else [])
    loaded = opened.cluster if opened else config.load(cluster, ClusterConfig)
    if foreground:
        serve.run_mount(MountConfig(loaded, str(point), allow_other=allows_others()))
    if opened is not None:
        file = _keep(opened, point)
        log = opened.logs / f"{file.stem}.log"
    else:
        file, log = _detach(loaded, point)
    try:
        trio.run(_wait_mounted, point, file, log, timeout)
    except (FsError, KeyboardInterrupt):
        _give_up(opened, file, point)
        raise
    if as_json:
        print_json({"mountpoint": str(point), "cluster_id": loaded.cluster_id, "log": str(log)})
    else:
        print(f"{cluster} is mounted on {point}")


def umount(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is mounted.")],
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Even if it is in use: detach it now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Unmount, and keep it unmounted."""
    point = mountpoint.absolute(directory)
    file, running = _server_of(point)
    mounted = mountpoint.mounted_at(point)
    if (mounted is None or not mounted.is_ours) and file is None:
        raise FsError(Code.CONFIG, f"no FireflyFS is mounted on {point}")
    # Out of the supervisor's sight first, so that it does not mount it again.
    hidden = file.rename(file.with_name(file.name + _HIDDEN)) if file and file.exists() else None
    try:
        if mounted is not None and mounted.is_ours:
            mountpoint.unmount(point, lazy=lazy)
    except FsError:
        if hidden is not None and file is not None:
            hidden.rename(file)
        raise
    if running is not None:
        trio.run(_end, running)
    if hidden is not None and file is not None:
        hidden.unlink()
        owner = _owner(file)
        if owner is not None:
            supervisor.notify(owner)
    if as_json:
        print_json({"mountpoint": str(point), "mounted": False})
    else:
        print(f"{point} is unmounted")


def _keep(opened: ClusterDirectory, point: Path) -> Path:
    """Hand the mount to the cluster's supervisor."""
    running = supervisor.find(opened)
    if running is None:
        message = f"{opened.root} is not up: fireflyfs up --dir {opened.root}"
        raise FsError(Code.CONFIG, message)
    running.close()
    has_main = (opened.mounts / f"{MAIN_MOUNT}.toml").exists()
    file = opened.add_mount(point, None if has_main else MAIN_MOUNT)
    supervisor.notify(opened)
    return file


def _detach(cluster: ClusterConfig, point: Path) -> tuple[Path, Path]:
    """A mount of a cluster whose directory is not on this host: nobody restarts it."""
    private_directory(STATE_DIRECTORY)
    stem = f"{cluster.cluster_id}-{time.time_ns():x}"
    log = STATE_DIRECTORY / f"{stem}.log"
    made = MountConfig(cluster, str(point), str(log), allow_other=allows_others())
    file = write(STATE_DIRECTORY / f"{stem}.toml", config.dump(made))
    processes.start(command_line("serve-mount", "--config", str(file)), log, log.parent).close()
    return file, log


async def _wait_mounted(point: Path, file: Path, log: Path, timeout: float) -> None:
    """Raises FsError: INTERNAL if its process has ended, TIMED_OUT."""
    seen_alive = file.parent == STATE_DIRECTORY
    with trio.move_on_after(timeout):
        while True:
            mounted = mountpoint.mounted_at(point)
            if mounted is not None and mounted.is_ours:
                return
            running = processes.find(file)
            if running is not None:
                running.close()
                seen_alive = True
            elif seen_alive:
                raise FsError(Code.INTERNAL, f"cannot mount: {lifecycle.last_line(log)}")
            await trio.sleep(POLL_SECONDS)
    raise FsError(Code.TIMED_OUT, f"not mounted after {timeout:.0f} s (log: {log})")


def _give_up(opened: ClusterDirectory | None, file: Path, point: Path) -> None:
    file.unlink(missing_ok=True)
    if opened is not None:
        supervisor.notify(opened)
    running = processes.find(file)
    if running is not None:
        trio.run(_end, running)
    mountpoint.detach(point)


async def _end(running: processes.Running) -> None:
    try:
        await running.stop(supervisor.STOP_GRACE)
    finally:
        running.close()


def _server_of(point: Path) -> tuple[Path | None, processes.Running | None]:
    """The configuration and the process that serve this mount point, if it was mounted by us."""
    for pid in processes.pids():
        words = processes.arguments(pid)
        file = processes.config_of(pid)
        if "serve-mount" in words and file is not None and _mountpoint_of(file) == point:
            return file, processes.find(file)
    return None, None


def _mountpoint_of(file: Path) -> Path | None:
    try:
        return Path(config.load(file, MountConfig).mountpoint)
    except FsError:
        return None


def _owner(file: Path) -> ClusterDirectory | None:
    """The cluster's directory that keeps this mount (``D/config/mounts/NAME.toml``)."""
    try:
        return ClusterDirectory.open(file.parent.parent.parent)
    except FsError:
        return None
