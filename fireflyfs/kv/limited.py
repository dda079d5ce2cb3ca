"""The limits that every engine holds its callers to, checked where a key or value comes in."""

from __future__ import annotations

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MAX_KV_KEY, MAX_KV_VALUE

STAMP_SIZE = 12
"""What ``set_versionstamped_key`` adds to its prefix: version (8), commit among those of that
version (2), order within the transaction (2), all big-endian."""
MAX_STAMPS = 1 << 16


def check_key(key: bytes) -> None:
    if len(key) > MAX_KV_KEY:
        raise FsError(
            Code.KV_LIMIT, f"key of {len(key)} bytes ({key[:32]!r}...), {MAX_KV_KEY} allowed"
        )


def check_value(key: bytes, value: bytes) -> None:
    if len(value) > MAX_KV_VALUE:
        raise FsError(
            Code.KV_LIMIT,
            f"value of {len(value)} bytes for key {key[:32]!r}, {MAX_KV_VALUE} allowed",
        )


def check_range(begin: bytes, end: bytes) -> None:
    check_key(begin)
    check_key(end[:-1])  # the key behind the longest key is one longer
    if begin > end:
        raise FsError(Code.INVALID, f"range ends before it begins: {begin!r}, {end!r}")


def check_stamped(prefix: bytes, value: bytes, already: int) -> None:
    """A versionstamped key, the transaction having ``already`` so many."""
    check_key(prefix + bytes(STAMP_SIZE))
    check_value(prefix, value)
    if already == MAX_STAMPS:
        raise FsError(Code.KV_LIMIT, f"more than {MAX_STAMPS} versionstamped keys")
