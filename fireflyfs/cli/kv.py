"""``fireflyfs kv``: a namespace to a file and back, and from one engine to another."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console

from fireflyfs.cli.options import JsonOption  # noqa: TC001  (typer reads it)
from fireflyfs.cli.output import format_size, print_json
from fireflyfs.errors import Code, FsError
from fireflyfs.kv import dump_file, moving
from fireflyfs.kv.open import open_engine
from fireflyfs.supervisor import create, supervisor
from fireflyfs.supervisor.directory import ClusterDirectory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import BinaryIO

    from fireflyfs.kv.base import Engine

    Page = list[tuple[bytes, bytes]]
    Tell = Callable[[Page], None]

_WHAT = (
    "a cluster's directory, embedded:/DIRECTORY or fdb:/PATH/fdb.cluster?prefix=NAME; "
    "nothing may write to it meanwhile"
)
Source = Annotated[str, typer.Argument(help=f"Where it is: {_WHAT}.", show_default=False)]
Destination = Annotated[str, typer.Argument(help=f"Where to: {_WHAT}.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace what the destination holds.")]

app = typer.Typer(
    help="Dump, restore and move namespaces (metadata, not the bytes of files).",
    no_args_is_help=True,
)


@app.command()
def dump(
    source: Source,
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Write a namespace to a file, whole and consistent or not at all."""
    if file.exists() and not force:
        raise FsError(Code.EXISTS, f"{file} exists: --force replaces it")
    with _progress("read") as tell:
        digest = trio.run(_dump, address(source), file, tell)
    _report(f"dumped to {file}", digest, as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What dump wrote.", show_default=False)],
    destination: Destination,
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty namespace from a file; if that fails, it is empty again."""
    with _progress("written") as tell, file.open("rb") as opened:
        digest = trio.run(_restore, opened, address(destination), force, tell)
    _report(f"restored to {destination}", digest, as_json)


@app.command()
def copy(
    source: Source,
    destination: Destination,
    force: Force = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="The cluster in SOURCE uses the copy from now on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty namespace from another, on any engine; if that fails, it is empty again."""
    cluster = _cluster(source) if switch else None
    origin, goal = address(source), address(destination)
    if cluster is not None:
        goal = create.own_store(goal, cluster.cluster.cluster_id)
    if origin == goal:
        raise FsError(Code.CONFIG, f"{source} and {destination} are the same namespace")
    with _progress("written") as tell:
        digest = trio.run(_copy, origin, goal, force, tell)
    if cluster is not None:
        cluster.use_store(goal)
    _report(f"copied to {goal}", digest, as_json)


def address(place: str) -> str:
    """The store's address. Raises FsError(CONFIG); FsError(NOT_PERMITTED) for a cluster that is up:
    its servers would not see what is put under their feet, and keep changing what is read."""
    return place if _is_address(place) else _cluster(place).cluster.kv


def _is_address(place: str) -> bool:
    return place.startswith(("embedded:", "fdb:", "memory:"))


def _cluster(place: str) -> ClusterDirectory:
    if _is_address(place):
        raise FsError(Code.CONFIG, f"--switch is for a cluster's directory, and {place} is none")
    opened = ClusterDirectory.open(Path(place))
    running = supervisor.find(opened)
    if running is not None:
        running.close()
        raise FsError(
            Code.NOT_PERMITTED, f"{place} is up: fireflyfs down --dir {opened.root} first"
        )
    return opened


async def _dump(source: str, file: Path, tell: Tell) -> moving.Digest:
    async with _opened(source, must_exist=True) as engine:
        draft = file.with_name(f"{file.name}.part")
        try:
            with draft.open("wb") as out:
                digest = await _dump_to(engine, out, tell)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return digest


async def _dump_to(engine: Engine, out: BinaryIO, tell: Tell) -> moving.Digest:
    async def sink(page: Page) -> None:
        dump_file.write_page(out, page)
        tell(page)

    dump_file.write_head(out)
    digest = await moving.read_all(engine, sink)
    dump_file.write_end(out, digest)
    return digest


async def _restore(file: BinaryIO, destination: str, force: bool, tell: Tell) -> moving.Digest:
    digest = moving.Digest()
    for page in dump_file.read_pages(file):  # all of it is sound before anything is touched
        digest.add(page)
    file.seek(0)
    async with _opened(destination) as engine, moving.all_or_nothing(engine, force=force):
        for page in dump_file.read_pages(file):
            await moving.write_page(engine, page)
            tell(page)
        await _verify(engine, digest)
    return digest


async def _copy(source: str, destination: str, force: bool, tell: Tell) -> moving.Digest:
    async with (
        _opened(source, must_exist=True) as origin,
        _opened(destination) as goal,
        moving.all_or_nothing(goal, force=force),
    ):

        async def sink(page: Page) -> None:
            await moving.write_page(goal, page)
            tell(page)

        digest = await moving.read_all(origin, sink)
        await _verify(goal, digest)
    return digest


async def _verify(engine: Engine, wanted: moving.Digest) -> None:
    await engine.flush()
    if await moving.digest_of(engine) != wanted:
        raise FsError(Code.CHECKSUM, "the destination does not hold what was written to it")


@contextlib.asynccontextmanager
async def _opened(url: str, *, must_exist: bool = False) -> AsyncIterator[Engine]:
    if must_exist and url.startswith("embedded:"):
        _check_directory(Path(url.removeprefix("embedded:")))
    engine = await open_engine(url)
    try:
        if must_exist and await moving.is_empty(engine):
            raise FsError(Code.CONFIG, f"{url} holds no namespace")
        yield engine
    finally:
        with trio.CancelScope(shield=True):
            await engine.close()


def _check_directory(directory: Path) -> None:
    """Opening would make it."""
    if not directory.is_dir():
        raise FsError(Code.CONFIG, f"there is no store in {directory}")


@contextlib.contextmanager
def _progress(done: str) -> Iterator[Tell]:
    """A line on stderr for who watches; silence for programs."""
    digest = moving.Digest()
    if not sys.stderr.isatty():
        yield lambda page: None
        return
    with Console(stderr=True).status("opening") as status:

        def tell(page: Page) -> None:
            digest.pairs += len(page)
            status.update(f"{digest.pairs:,} keys {done}")

        yield tell


def _report(done: str, digest: moving.Digest, as_json: bool) -> None:
    if as_json:
        print_json({"keys": digest.pairs, "bytes": digest.size, "checksum": digest.checksum})
    else:
        print(f"{digest.pairs:,} keys ({format_size(digest.size)}) {done}")
