"""Opening a store: what a crash left is brought back to exactly what was acknowledged.

After ``kill -9`` that is the newest state; after a power cut, at least the last flushed one. See
``epochs.py`` for why the undos and redos that are found suffice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from storage_service.store.contents import fetch
from storage_service.store.metadata import CHUNK, REDO, UNDO, chunk_key, redo_key
from storage_service.store.record import Block, Location, Record, Redo, decode, decode_redo, places

if TYPE_CHECKING:
    from storage_service.store.blocks import BlockFiles
    from storage_service.store.cache import Cache
    from storage_service.store.metadata import Metadata, Put
    from storage_service.store.space import Space

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    chunks: int = 0
    """Number of records."""
    next_redo: int = 1
    redo_bytes: int = 0
    redone: dict[Block, int] = field(default_factory=dict)
    """Blocks with committed redos, and up to which."""


def recover(metadata: Metadata, files: BlockFiles, space: Space, cache: Cache) -> Recovered:
    """Settle what a crash left, mark the blocks in use, load the records that have redos.

    Raises ``FsError(TARGET_FAILED)`` if the metadata contradicts itself, and ``OSError``.
    """
    redos = _load_redos(metadata)
    _restore(metadata, files, redos)
    found = Recovered()
    wanted = _occupy(metadata, space, set(redos), found)
    _attach(metadata, cache, redos, wanted, found)
    return found


def _load_redos(metadata: Metadata) -> dict[Location, list[Redo]]:
    found: dict[Location, list[Redo]] = {}
    for key, raw in metadata.scan(REDO):
        redo = decode_redo(int.from_bytes(key, "big"), raw)
        found.setdefault(redo.location, []).append(redo)
    return found


def _restore(metadata: Metadata, files: BlockFiles, redos: dict[Location, list[Redo]]) -> None:
    """Choose a state for every chunk that has undos; afterwards all chosen ones are durable."""
    undos: dict[bytes, list[bytes]] = {}
    keys: list[bytes] = []
    for key, raw in metadata.scan(UNDO):
        undos.setdefault(key[8:], []).insert(0, raw)
        keys.append(UNDO + key)
    if not keys:
        return
    files.sync_all()
    puts: list[Put] = []
    for chunk, older in undos.items():
        newest = metadata.get(chunk_key(chunk)) or b""
        chosen = next((raw for raw in [newest, *older] if _holds(files, redos, chunk, raw)), newest)
        if chosen is not newest:
            _log.warning("chunk=%s: a power cut lost its newest bytes, restored", chunk.hex())
            puts.append((chunk_key(chunk), chosen or None))
    metadata.write(puts)
    metadata.sync()
    metadata.write([(key, None) for key in keys])


def _holds(files: BlockFiles, redos: dict[Location, list[Redo]], chunk: bytes, raw: bytes) -> bool:
    """Whether all bytes that a record describes are there; an absent chunk's are."""
    try:
        record = decode(chunk, raw) if raw else Record(None)
        for block in record.blocks():
            block.redos = tuple(redos.get(block.location, ()))
        for content in record.contents():
            fetch(files, chunk, content, 0, content.length)
    except (FsError, KeyError):
        return False
    return True


def _occupy(
    metadata: Metadata, space: Space, redone: set[Location], found: Recovered
) -> list[bytes]:
    """Mark every block in use; the chunks whose blocks have redos."""
    wanted: list[bytes] = []
    for chunk, raw in metadata.scan(CHUNK):
        found.chunks += 1
        for location, upto in _places(chunk, raw):
            if not space.occupy(location):
                message = f"chunk {chunk.hex()}: block {location} is another's, or is not there"
                raise FsError(Code.TARGET_FAILED, message)
            found.next_redo = max(found.next_redo, upto + 1)
            if location in redone:
                wanted.append(chunk)
    return wanted


def _places(chunk: bytes, raw: bytes) -> list[tuple[Location, int]]:
    try:
        return places(chunk, raw).blocks
    except FsError as error:
        raise FsError(Code.TARGET_FAILED, "the metadata is damaged") from error


def _attach(
    metadata: Metadata,
    cache: Cache,
    redos: dict[Location, list[Redo]],
    wanted: list[bytes],
    found: Recovered,
) -> None:
    """Give each block its redos; forget those that no version has."""
    kept: set[int] = set()
    for chunk in wanted:
        record = cache.hold(chunk).record
        assert record is not None
        for content in record.contents():
            if content.block is None or content.block.redos:
                continue
            upto = max(c.redo_upto for c in record.contents() if c.block is content.block)
            own = [r for r in redos.get(content.block.location, ()) if r.sequence <= upto]
            content.block.redos = tuple(own)
            content.block.high = max([content.block.high, *(r.end for r in own)])
            if record.committed is not None and content is record.committed.content:
                found.redone[content.block] = content.redo_upto
            kept |= {redo.sequence for redo in own}
            found.redo_bytes += sum(len(redo.data) for redo in own)
    every = {redo.sequence for group in redos.values() for redo in group}
    found.next_redo = max([found.next_redo, *(sequence + 1 for sequence in every)])
    metadata.write([(redo_key(sequence), None) for sequence in every - kept])
