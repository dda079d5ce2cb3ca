"""A store by its address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.embedded import open_embedded
from fireflyfs.kv.fdb import open_fdb
from fireflyfs.kv.fdb_place import Place
from fireflyfs.kv.memory import MemoryEngine

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine


async def open_engine(url: str) -> Engine:
    """Open ``embedded:/directory`` (shared by the processes of this machine), ``memory:`` (empty,
    this object only) or ``fdb:/path/fdb.cluster?prefix=NAME`` (a namespace on FoundationDB).

    Errors:
        FsError: ``CONFIG``: another engine, or a directory or cluster file that
            cannot be used, or FoundationDB's client is not installed.
    """
    scheme, colon, place = url.partition(":")
    if scheme == "memory" and colon and not place:
        return MemoryEngine()
    if scheme == "embedded" and Path(place).is_absolute():
        return await open_embedded(Path(place))
    if scheme == "fdb" and colon:
        return await open_fdb(Place.parse(url))
    raise FsError(
        Code.CONFIG,
        f"no store at {url!r}: the engines are embedded:/DIRECTORY, fdb:/PATH/fdb.cluster, memory:",
    )
