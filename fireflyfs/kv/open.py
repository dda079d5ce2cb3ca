"""A store by its address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.embedded import open_embedded
from fireflyfs.kv.memory import MemoryEngine

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine


async def open_engine(url: str) -> Engine:
    """Open ``embedded:/directory`` (shared by the processes of this machine) or ``memory:`` (empty,
    this object only).

    Errors:
        FsError: ``CONFIG``: another engine, or a directory that cannot be used.
    """
    scheme, colon, place = url.partition(":")
    if scheme == "memory" and colon and not place:
        return MemoryEngine()
    if scheme == "embedded" and Path(place).is_absolute():
        return await open_embedded(Path(place))
    raise FsError(
        Code.CONFIG,
        f"no store at {url!r}: this build has the engines embedded:/directory and memory:",
    )
