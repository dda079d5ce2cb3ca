"""The one numbered table of error codes: what each means, whether to retry, errno, gRPC status.

Numbers are part of the wire protocol and never reused.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Meaning:
    errno: int
    grpc: str
    """Name of the grpc.StatusCode (by name: this module imports the standard library only)."""
    retry: bool = False
    """The same request may succeed later or elsewhere; the client retries until its deadline."""


class Code(enum.IntEnum):
    """Why a request failed. ``OK`` is 0."""

    OK = 0
    # The namespace: 1xx
    NOT_FOUND = 100
    EXISTS = 101
    NOT_DIRECTORY = 102
    IS_DIRECTORY = 103
    NOT_EMPTY = 104
    NAME_TOO_LONG = 105
    TOO_MANY_LINKS = 106
    LOOP = 107
    NOT_PERMITTED = 108
    ACCESS_DENIED = 109
    NO_ATTRIBUTE = 110
    TOO_LARGE = 111
    FILE_TOO_LARGE = 112
    BAD_HANDLE = 113
    STALE_INODE = 114
    NOT_SUPPORTED = 115
    NO_SESSION = 116
    # The transactional store: 2xx
    KV_CONFLICT = 200
    KV_UNKNOWN_RESULT = 201
    KV_TOO_OLD = 202
    KV_LIMIT = 203
    KV_UNAVAILABLE = 204
    # Chunks and chains: 3xx
    ROUTING_STALE = 300
    NOT_SERVING = 301
    LEASE_EXPIRED = 302
    CHUNK_DIRTY = 303
    VERSION_GAP = 304
    CHECKSUM = 305
    NO_SPACE = 306
    TARGET_FAILED = 307
    CHAIN_UNAVAILABLE = 308
    SUPERSEDED = 309
    # The wire: 4xx
    UNREACHABLE = 400
    TIMED_OUT = 401
    MALFORMED = 402
    UNAUTHENTICATED = 403
    WRONG_CLUSTER = 404
    OVERLOADED = 405
    UNKNOWN_METHOD = 406
    CANCELLED = 407
    # The rest: 9xx
    INVALID = 900
    CONFIG = 901
    INTERNAL = 999

    @property
    def errno(self) -> int:
        return _TABLE[self].errno

    @property
    def grpc(self) -> str:
        return _TABLE[self].grpc

    @property
    def retry(self) -> bool:
        return _TABLE[self].retry


_TABLE: dict[Code, _Meaning] = {
    Code.OK: _Meaning(0, "OK"),
    Code.NOT_FOUND: _Meaning(errno.ENOENT, "NOT_FOUND"),
    Code.EXISTS: _Meaning(errno.EEXIST, "ALREADY_EXISTS"),
    Code.NOT_DIRECTORY: _Meaning(errno.ENOTDIR, "FAILED_PRECONDITION"),
    Code.IS_DIRECTORY: _Meaning(errno.EISDIR, "FAILED_PRECONDITION"),
    Code.NOT_EMPTY: _Meaning(errno.ENOTEMPTY, "FAILED_PRECONDITION"),
    Code.NAME_TOO_LONG: _Meaning(errno.ENAMETOOLONG, "INVALID_ARGUMENT"),
    Code.TOO_MANY_LINKS: _Meaning(errno.EMLINK, "FAILED_PRECONDITION"),
    Code.LOOP: _Meaning(errno.ELOOP, "FAILED_PRECONDITION"),
    Code.NOT_PERMITTED: _Meaning(errno.EPERM, "PERMISSION_DENIED"),
    Code.ACCESS_DENIED: _Meaning(errno.EACCES, "PERMISSION_DENIED"),
    Code.NO_ATTRIBUTE: _Meaning(errno.ENODATA, "NOT_FOUND"),
    Code.TOO_LARGE: _Meaning(errno.E2BIG, "INVALID_ARGUMENT"),
    Code.FILE_TOO_LARGE: _Meaning(errno.EFBIG, "OUT_OF_RANGE"),
    Code.BAD_HANDLE: _Meaning(errno.EBADF, "FAILED_PRECONDITION"),
    Code.STALE_INODE: _Meaning(errno.ESTALE, "NOT_FOUND"),
    Code.NOT_SUPPORTED: _Meaning(errno.EOPNOTSUPP, "UNIMPLEMENTED"),
    Code.NO_SESSION: _Meaning(errno.ESTALE, "FAILED_PRECONDITION"),
    Code.KV_CONFLICT: _Meaning(errno.EAGAIN, "ABORTED", retry=True),
    Code.KV_UNKNOWN_RESULT: _Meaning(errno.EIO, "UNKNOWN", retry=True),
    Code.KV_TOO_OLD: _Meaning(errno.EAGAIN, "ABORTED", retry=True),
    Code.KV_LIMIT: _Meaning(errno.E2BIG, "INVALID_ARGUMENT"),
    Code.KV_UNAVAILABLE: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.ROUTING_STALE: _Meaning(errno.EIO, "FAILED_PRECONDITION", retry=True),
    Code.NOT_SERVING: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.LEASE_EXPIRED: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.CHUNK_DIRTY: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.VERSION_GAP: _Meaning(errno.EIO, "FAILED_PRECONDITION", retry=True),
    Code.CHECKSUM: _Meaning(errno.EIO, "DATA_LOSS", retry=True),
    Code.NO_SPACE: _Meaning(errno.ENOSPC, "RESOURCE_EXHAUSTED"),
    Code.TARGET_FAILED: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.CHAIN_UNAVAILABLE: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.SUPERSEDED: _Meaning(errno.EIO, "ABORTED"),
    Code.UNREACHABLE: _Meaning(errno.EIO, "UNAVAILABLE", retry=True),
    Code.TIMED_OUT: _Meaning(errno.ETIMEDOUT, "DEADLINE_EXCEEDED", retry=True),
    Code.MALFORMED: _Meaning(errno.EIO, "INVALID_ARGUMENT"),
    Code.UNAUTHENTICATED: _Meaning(errno.EACCES, "UNAUTHENTICATED"),
    Code.WRONG_CLUSTER: _Meaning(errno.EACCES, "FAILED_PRECONDITION"),
    Code.OVERLOADED: _Meaning(errno.EAGAIN, "RESOURCE_EXHAUSTED", retry=True),
    Code.UNKNOWN_METHOD: _Meaning(errno.ENOSYS, "UNIMPLEMENTED"),
    Code.CANCELLED: _Meaning(errno.EINTR, "CANCELLED"),
    Code.INVALID: _Meaning(errno.EINVAL, "INVALID_ARGUMENT"),
    Code.CONFIG: _Meaning(errno.EINVAL, "INVALID_ARGUMENT"),
    Code.INTERNAL: _Meaning(errno.EIO, "INTERNAL"),
}
assert set(_TABLE) == set(Code)


class FsError(Exception):
    """A failed request: a code of the table and a sentence that says where and why.

    Chain causes with ``raise FsError(...) from error``; ``str`` prints them all.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def errno(self) -> int:
        return self.code.errno

    @property
    def retry(self) -> bool:
        return self.code.retry

    def __str__(self) -> str:
        cause = self.__cause__
        return f"{self.message}: {cause}" if cause is not None else self.message

    def __repr__(self) -> str:
        return f"FsError({self.code.name}, {str(self)!r})"


def code_of(number: int) -> Code:
    """The code for a number from the wire; unknown numbers (a newer peer) are ``INTERNAL``."""
    try:
        return Code(number)
    except ValueError:
        return Code.INTERNAL


def refusal_in(error: BaseException) -> FsError | None:
    """The FsError that ``error`` is, or that a group of nothing else (of a nursery) stands for: one
    that must not be retried if there is one, else the first. None when a defect is among them."""
    if isinstance(error, FsError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [refusal_in(inner) for inner in error.exceptions]
    known = [inner for inner in found if inner is not None]
    if len(known) < len(found):
        return None
    return next((inner for inner in known if not inner.retry), known[0])
