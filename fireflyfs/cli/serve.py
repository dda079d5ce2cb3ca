"""The processes of a cluster, each in the foreground of its own: what the supervisor starts.

The only module of the common ground that knows the packages above it, and only when asked.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fireflyfs import config, log, process
from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ConfigOption = Annotated[Path, typer.Option("--config", help="Its TOML file.", show_default=False)]


def register(app: typer.Typer) -> None:
    for name, command, purpose in (
        ("manager", serve_manager, "The cluster manager."),
        ("meta", serve_meta, "A metadata server."),
        ("storage", serve_storage, "A storage node."),
    ):
        noun = typer.Typer(help=purpose, no_args_is_help=True)
        noun.callback()(_noun)
        noun.command("serve")(command)
        app.add_typer(noun, name=name)
    app.command("serve-mount", hidden=True)(serve_mount)
    app.command("supervise", hidden=True)(supervise)


def _noun() -> None:
    """Keeps the verb: a group with one command would swallow its name."""


def serve_manager(file: ConfigOption) -> None:
    """Run the cluster manager until SIGTERM."""
    loaded = config.load(file, config.ManagerConfig)
    from chain_replication.manager.service import serve

    run("manager", loaded.log_file, functools.partial(serve, loaded))


def serve_meta(file: ConfigOption) -> None:
    """Run a metadata server until SIGTERM."""
    loaded = config.load(file, config.MetaConfig)
    from meta_service.service import serve

    run(loaded.name, loaded.log_file, functools.partial(serve, loaded))


def serve_storage(file: ConfigOption) -> None:
    """Run a storage node until SIGTERM."""
    loaded = config.load(file, config.StorageConfig)
    from storage_service.service import serve

    run(loaded.name, loaded.log_file, functools.partial(serve, loaded))


def serve_mount(file: ConfigOption) -> None:
    """Serve a FUSE mount until SIGTERM or until it is unmounted."""
    loaded = config.load(file, config.MountConfig)
    run_mount(loaded)


def run_mount(loaded: config.MountConfig) -> None:
    from fuse_client.mount import serve

    run("mount", loaded.log_file, functools.partial(serve, loaded))


def supervise(file: ConfigOption) -> None:
    """Keep the processes of a cluster's directory running until SIGTERM."""
    from fireflyfs.supervisor.directory import ClusterDirectory, HostConfig
    from fireflyfs.supervisor.supervisor import Supervisor, locked

    directory = ClusterDirectory.open(Path(config.load(file, HostConfig).directory))
    directory.prepare()
    with locked(directory):
        run("supervisor", str(directory.logs / "supervisor.log"), Supervisor(directory).run)


def run(role: str, log_file: str | None, main: Callable[..., Awaitable[Any]]) -> None:
    """Run a process's ``main`` with its log; leaves with its exit code."""
    try:
        log.setup(role, Path(log_file) if log_file else None)
    except OSError as error:
        raise FsError(Code.CONFIG, f"log file {log_file}: {error.strerror}") from None
    raise typer.Exit(process.run(main))
