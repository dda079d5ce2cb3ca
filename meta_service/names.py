"""What a request may say: names, types, numbers. Checked before anything is read. Pure."""

from __future__ import annotations

import stat

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import (
    MAX_FILE_SIZE,
    MAX_NAME,
    MAX_SYMLINK,
    MAX_XATTR_NAME,
    MAX_XATTR_VALUE,
)

PERMISSION_BITS = 0o7777
NODE_TYPES = frozenset((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
DEVICE_TYPES = frozenset((stat.S_IFCHR, stat.S_IFBLK))
XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.")


def check_name(name: bytes) -> None:
    """Raises FsError: ``INVALID`` for what can name no entry, ``NAME_TOO_LONG``."""
    if len(name) > MAX_NAME:
        raise FsError(Code.NAME_TOO_LONG, f"a name of {len(name)} bytes; {MAX_NAME} at most")
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise FsError(Code.INVALID, f"{name!r} cannot name an entry")


def check_target(target: bytes) -> None:
    """Raises FsError as symlink(2): ``NOT_FOUND`` when empty, ``NAME_TOO_LONG``, ``INVALID``."""
    if not target:
        raise FsError(Code.NOT_FOUND, "a symbolic link to nothing")
    if len(target) > MAX_SYMLINK:
        raise FsError(
            Code.NAME_TOO_LONG, f"a link target of {len(target)} bytes; {MAX_SYMLINK} at most"
        )
    if b"\0" in target:
        raise FsError(Code.INVALID, "a link target with a NUL byte")


def node_mode(mode: int) -> int:
    """The mode of a new node; no type means a regular file, as for mknod(2).

    Raises:
        FsError: ``NOT_PERMITTED`` for a directory, ``INVALID`` for other types.
    """
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind == stat.S_IFDIR:
        raise FsError(Code.NOT_PERMITTED, "mknod does not make directories")
    if kind not in NODE_TYPES:
        raise FsError(Code.INVALID, f"mknod does not make type {kind:#o}")
    return kind | mode & PERMISSION_BITS


def check_length(length: int) -> None:
    """Raises FsError: ``FILE_TOO_LARGE``."""
    if length > MAX_FILE_SIZE:
        raise FsError(Code.FILE_TOO_LARGE, f"a length of {length}; {MAX_FILE_SIZE} at most")


def check_xattr_name(name: bytes) -> None:
    """Raises FsError: ``NAME_TOO_LONG``, ``INVALID``, ``NOT_SUPPORTED`` for another namespace.

    ``system.`` is refused: an access control list that is kept but not enforced would be a lie.
    """
    if len(name) > MAX_XATTR_NAME:
        raise FsError(
            Code.NAME_TOO_LONG,
            f"an attribute name of {len(name)} bytes; {MAX_XATTR_NAME} at most",
        )
    if not name or b"\0" in name:
        raise FsError(Code.INVALID, f"{name!r} cannot name an attribute")
    if not name.startswith(XATTR_NAMESPACES):
        raise FsError(Code.NOT_SUPPORTED, f"attribute {name!r} is in no supported namespace")
    if name in XATTR_NAMESPACES:
        raise FsError(Code.INVALID, f"attribute {name!r} has no name in its namespace")


def check_xattr_value(value: bytes) -> None:
    """Raises FsError: ``TOO_LARGE``."""
    if len(value) > MAX_XATTR_VALUE:
        raise FsError(
            Code.TOO_LARGE, f"an attribute of {len(value)} bytes; {MAX_XATTR_VALUE} at most"
        )


def check_place(host: str, mountpoint: str) -> None:
    """Raises FsError: ``INVALID`` for a place too long to be one."""
    if len(host) > MAX_NAME or len(mountpoint) > MAX_SYMLINK:
        raise FsError(Code.INVALID, "the client's host or mount point is too long")


def check_client(client: int) -> None:
    """Raises FsError: ``INVALID`` for a request that must name its client and does not."""
    if not client:
        raise FsError(Code.INVALID, "the request names no client")
