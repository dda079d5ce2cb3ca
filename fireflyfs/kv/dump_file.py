"""The file that a namespace is dumped to.

::

    "FireflyFS namespace 1\\n"
    pages, each:  length of its records (u32)  CRC32C of them (u32)  records
                  a record:  length of key (u32)  length of value (u32)  key  value
    the end:      0 (u32)  CRC32C of the next 12 bytes (u32)
                  number of pairs (u64)  checksum of all of them (u32, ``moving.Digest``)

Numbers are big-endian; keys ascend. A file without its end is none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from fireflyfs.checksum import crc32c
from fireflyfs.errors import Code, FsError
from fireflyfs.kv.moving import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Pair = tuple[bytes, bytes]

MAGIC = b"FireflyFS namespace 1\n"
MAX_PAGE = 1 << 28
_HEAD = struct.Struct(">II")
_END = struct.Struct(">QI")


def write_head(file: BinaryIO) -> None:
    file.write(MAGIC)


def write_page(file: BinaryIO, page: Sequence[Pair]) -> None:
    if not page:
        return
    parts: list[bytes] = []
    for key, value in page:
        parts += (_HEAD.pack(len(key), len(value)), key, value)
    records = b"".join(parts)
    file.write(_HEAD.pack(len(records), crc32c(records)))
    file.write(records)


def write_end(file: BinaryIO, digest: Digest) -> None:
    end = _END.pack(digest.pairs, digest.checksum)
    file.write(_HEAD.pack(0, crc32c(end)))
    file.write(end)


def read_pages(file: BinaryIO) -> Iterator[list[Pair]]:
    """The pages of a dump from its start. Only when it is exhausted, the dump is known to be whole.

    Errors:
        FsError: ``MALFORMED``: no dump, cut short, or longer than its end; ``CHECKSUM``: damaged.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise FsError(Code.MALFORMED, "not a dump of a namespace that this version can read")
    digest = Digest()
    last = b""
    while True:
        length, checksum = _HEAD.unpack(_read(file, _HEAD.size))
        if length > MAX_PAGE:
            raise FsError(Code.CHECKSUM, "the dump is damaged: a page of an impossible length")
        data = _read(file, length or _END.size)
        if crc32c(data) != checksum:
            raise FsError(Code.CHECKSUM, f"the dump is damaged after {digest.pairs} keys")
        if not length:
            break
        page = _records(data)
        keys = [key for key, _ in page]
        if sorted({*keys}) != keys or (digest.pairs and keys[0] <= last):
            raise FsError(Code.MALFORMED, "the dump's keys are not in order")
        last = keys[-1]
        digest.add(page)
        yield page
    if _END.unpack(data) != (digest.pairs, digest.checksum) or file.read(1):
        raise FsError(Code.MALFORMED, "the dump's end does not fit to what it holds")


def _records(data: bytes) -> list[Pair]:
    page: list[Pair] = []
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise FsError(Code.MALFORMED, "the dump holds half a record")
        key_length, value_length = _HEAD.unpack_from(data, at)
        middle = at + _HEAD.size + key_length
        end = middle + value_length
        if end > len(data):
            raise FsError(Code.MALFORMED, "the dump holds half a record")
        page.append((data[at + _HEAD.size : middle], data[middle:end]))
        at = end
    return page


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise FsError(Code.MALFORMED, "the dump is cut short")
    return data
