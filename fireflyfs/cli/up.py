"""``fireflyfs up`` and ``down``: a whole cluster on this machine, mounted."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console

from fireflyfs import config, limits
from fireflyfs.cli import preflight
from fireflyfs.cli.options import DirectoryOption, JsonOption, chosen_directory
from fireflyfs.cli.output import format_size, parse_size, print_json
from fireflyfs.cli.status import as_json_object, print_status
from fireflyfs.config import MountConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.supervisor import create, lifecycle, mountpoint, supervisor
from fireflyfs.supervisor.directory import MAIN_MOUNT, ClusterDirectory, exists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fireflyfs.supervisor.view import View

DEFAULT_NODES = 3
DEFAULT_REPLICAS = 3


def register(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("down")(down)


def up(
    directory: DirectoryOption = None,
    mount: Annotated[
        Path | None,
        typer.Option(help="Empty directory to mount on (default: DIR/mnt).", show_default=False),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Storage nodes (default: 3).", show_default=False)
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="Copies of every byte (default: 3, or all nodes).", show_default=False),
    ] = None,
    chunk_size: Annotated[
        str | None, typer.Option(help="Size of a chunk (default: 1MiB).", show_default=False)
    ] = None,
    kv: Annotated[
        str | None,
        typer.Option(
            help="Keep the namespace on FoundationDB: fdb:/PATH/TO/fdb.cluster "
            "(default: in the directory).",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is whole.")] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Start a cluster on this machine and mount it; run again, it says that it is up."""
    root = chosen_directory(directory)
    size = None if chunk_size is None else parse_size(chunk_size, "--chunk-size")
    preflight.check_fuse()
    point = None if mount is None else mountpoint.absolute(mount)
    with lifecycle.turn(root):
        if exists(root):
            opened = ClusterDirectory.open(root)
            _check_unchanged(opened, nodes, replicas, size, kv)
            was_up = _ensure_started(opened, point)
        else:
            opened = _make(root, point, nodes, replicas, size, kv)
            was_up = False
        seen = trio.run(_wait, opened, timeout, as_json, was_up)
    if as_json:
        print_json({"was_up": was_up, **as_json_object(opened, seen)})
        return
    print(f"FireflyFS {'is' if was_up else 'is now'} up, mounted on {_main_mount(opened)}")
    print_status(opened, seen)
    print(f"Stop it: fireflyfs down --dir {opened.root}")


def down(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Stop every process of the cluster and unmount it; what is stored stays."""
    opened = ClusterDirectory.open(chosen_directory(directory))
    with lifecycle.turn(opened.root):
        worked = trio.run(lifecycle.stop, opened)
    if as_json:
        print_json({"directory": str(opened.root), "was_up": worked})
    else:
        print(f"{opened.root} {'is now down' if worked else 'was down already'}")


def _make(
    root: Path,
    point: Path | None,
    nodes: int | None,
    replicas: int | None,
    size: int | None,
    kv: str | None,
) -> ClusterDirectory:
    """Make the directory and start; whatever is refused, nothing is left behind."""
    create.check_usable(root)
    if point is not None:
        mountpoint.check_free(point, keep_visible=[root.resolve()])
    existed = root.exists()
    nodes = DEFAULT_NODES if nodes is None else nodes
    made = create.create(
        root,
        nodes=nodes,
        replicas=min(DEFAULT_REPLICAS, nodes) if replicas is None else replicas,
        chunk_size=limits.DEFAULT_CHUNK_SIZE if size is None else size,
        kv=kv,
    )
    try:
        if kv is not None:
            trio.run(preflight.check_store, made.cluster.kv)
        if point is None:
            made.default_mountpoint.mkdir(exist_ok=True)
            mountpoint.check_free(made.default_mountpoint)
        made.add_mount(point or made.default_mountpoint, MAIN_MOUNT)
        lifecycle.start(made)
    except (OSError, FsError):
        create.remove(made, keep_root=existed)
        raise
    return made


def _ensure_started(opened: ClusterDirectory, point: Path | None) -> bool:
    """Start the supervisor unless there is one (then True); move the mount if that was asked."""
    opened.prepare()
    before = _main_mount(opened)
    point = point or before or opened.default_mountpoint
    running = supervisor.find(opened)
    if point != before or running is None:
        _check_ours_or_free(opened, point)
    if point != before:
        opened.add_mount(point, MAIN_MOUNT)
    if running is None:
        lifecycle.start(opened)
        return False
    running.close()
    supervisor.notify(opened)
    return True


def _check_ours_or_free(opened: ClusterDirectory, point: Path) -> None:
    """What is mounted there may be ours: alive, if only the supervisor was killed, or what a dead
    process left, which the supervisor takes away. Raises FsError(CONFIG)."""
    mount = mountpoint.mounted_at(point)
    if mount is not None and mount.is_ours and point == _main_mount(opened):
        return
    if point == opened.default_mountpoint:
        point.mkdir(exist_ok=True)
    mountpoint.check_free(point, keep_visible=[opened.root])


def _main_mount(opened: ClusterDirectory) -> Path | None:
    file = opened.mounts / f"{MAIN_MOUNT}.toml"
    return Path(config.load(file, MountConfig).mountpoint) if file.exists() else None


def _check_unchanged(
    opened: ClusterDirectory,
    nodes: int | None,
    replicas: int | None,
    size: int | None,
    kv: str | None,
) -> None:
    store = opened.cluster.kv
    for option, wanted, real in (
        ("--kv", kv, store if kv is None or "?" in kv else store.partition("?")[0]),
        ("--nodes", nodes, opened.host.nodes),
        ("--replicas", replicas, opened.cluster.replicas),
        ("--chunk-size", size, opened.cluster.chunk_size),
    ):
        if wanted is not None and wanted != real:
            shown = format_size(int(real)) if option == "--chunk-size" else real
            way = ", or move it: fireflyfs kv copy --switch" if option == "--kv" else ""
            raise FsError(
                Code.CONFIG,
                f"{opened.root} was made with {option} {shown}, which cannot be changed: "
                f"leave the option out, or give another --dir{way}",
            )


async def _wait(opened: ClusterDirectory, timeout: float, quiet: bool, was_up: bool) -> View:
    with _progress(quiet) as tell:
        try:
            return await lifecycle.wait_until_whole(opened, timeout, tell)
        except FsError as error:
            # Merely slow, it goes on; what cannot start is not left half-running.
            if not was_up and error.code is not Code.TIMED_OUT:
                await lifecycle.stop(opened)
            raise


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    if quiet or not sys.stderr.isatty():
        yield lambda missing: None
        return
    with console.status("starting") as status:
        yield lambda missing: status.update(f"waiting for {missing}")
