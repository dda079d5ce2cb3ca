"""Every value that the metadata servers store: its fields, and its bytes.

A value is the MessagePack list ``[version, field, field, ...]`` of a row class below, fields in the
order of the class. A newer version may only add fields at the end; a reader fills what an older row
lacks from the class' defaults, and refuses a version that it does not know (``INTERNAL``): it would
lose fields when it writes the row back. Keys are in ``fireflyfs/kv/keys.py``. Counters (``L``,
``V``, ``N``) are not rows but the store's own atomic integers.

Times are signed nanoseconds since 1970.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgpack

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row")


@dataclass(slots=True)
class InodeRow:
    """``I``: everything about an inode but its names, and but what many writers share."""

    mode: int
    """Type and permission bits, as ``st_mode``."""
    uid: int
    gid: int
    nlink: int
    """Names of a file; 0 while only sessions hold it. Directories: unused, see ``L``."""
    atime: int
    mtime: int
    """Directories: unused, see ``T``."""
    ctime: int
    """Directories: the later of this and of ``T`` counts."""
    change: int = 1
    """Grows with every write of this row. Directories: ``V`` is added to it."""
    length: int = 0
    """Files: bytes, as last reported or set. Symlinks and directories: 0, it is computed."""
    peak: int = 0
    """Files: the greatest length ever: no chunk lies behind it, if every writer has reported."""
    chunk_size: int = 0
    chains: tuple[int, ...] = ()
    """Files: ``fireflyfs.layout.Layout``, fixed at creation."""
    target: bytes = b""
    """Symlinks."""
    rdev: int = 0
    """Device nodes."""
    parent: int = 0
    """Directories: the one that names it; the root names itself. The way up, for renames."""
    xattr_names: int = 0
    """Bytes of the names of all extended attributes, each with its NUL, as listxattr(2) counts."""


@dataclass(slots=True)
class DentryRow:
    """``D``: what a name in a directory stands for."""

    inode: int
    type: int
    """``S_IFMT`` bits of the inode's mode; they never change."""


@dataclass(slots=True)
class TimesRow:
    """``T``: when the entries of a directory last changed.

    Written unread, so that creates in one directory do not conflict; the last commit wins.
    """

    mtime: int
    ctime: int


@dataclass(slots=True)
class XattrRow:
    """``X``: an extended attribute."""

    value: bytes


@dataclass(slots=True)
class SessionRow:
    """``S``: a client has an inode open. The client counts its own handles; this is one row."""

    opened: int
    """When the client first opened it."""
    write: bool
    """One of the handles can write: if the client dies, the length is settled from the chunks."""


@dataclass(slots=True)
class ClientRow:
    """``K``: a client that lives, or did; its sessions go when it has been silent for long."""

    seen: int
    """When a metadata server last heard it, at most ``sessions.REFRESH_SECONDS`` old."""
    host: str = ""
    mountpoint: str = ""
    """Empty for a client that is no mount."""


@dataclass(slots=True)
class OrphanRow:
    """``O``: an inode without a name that a session still holds."""

    since: int


@dataclass(slots=True)
class GarbageRow:
    """``G``: chunks to remove; the inode itself is gone already, its number is never used again."""

    since: int
    chunk_size: int
    chains: tuple[int, ...]
    """The chains that may hold chunks of it; the others are not asked."""


@dataclass(slots=True)
class ResultRow:
    """``R``: what a committed mutation answered, for a retry of the same request."""

    committed: int
    """By the server's clock; rows older than ``operation.RESULT_SECONDS`` are swept."""
    method: str
    """A retry must ask for the same."""
    reply: bytes
    """The protobuf message."""


@dataclass(slots=True)
class LeaseRow:
    """``N lease ...``: one server at a time does a background job."""

    holder: int
    """Generation of the server's process."""
    until: int


VERSION = 1

_unpack = functools.partial(msgpack.unpackb, use_list=False)


def encode(row: DataclassInstance) -> bytes:
    """The bytes to store."""
    packed: bytes = msgpack.packb((VERSION, *[getattr(row, name) for name in row.__slots__]))  # type: ignore[attr-defined]
    return packed


def decode(cls: type[Row], value: bytes) -> Row:
    """The row in ``value``.

    Raises:
        FsError: ``INTERNAL`` when the bytes are no row of this class, or of a newer version.
    """
    try:
        version, *values = _unpack(value)
        if version == VERSION:
            return cls(*values)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FsError(Code.INTERNAL, f"a stored {cls.__name__} is damaged") from error
    raise FsError(
        Code.INTERNAL, f"a stored {cls.__name__} has version {version}, this server knows {VERSION}"
    )
