"""Errors as gRPC statuses and back: the table of ``fireflyfs/errors.py`` rules.

The trailing metadata ``fireflyfs-code`` carries our number; a status without it comes from gRPC
itself or from a foreign server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from fireflyfs.errors import Code, FsError, code_of

if TYPE_CHECKING:
    from typing import NoReturn

CODE_KEY = "fireflyfs-code"
_MAX_DETAILS = 1024

_FOREIGN = {
    grpc.StatusCode.UNAVAILABLE: Code.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.TIMED_OUT,
    grpc.StatusCode.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED: Code.UNKNOWN_METHOD,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.OVERLOADED,
    grpc.StatusCode.CANCELLED: Code.CANCELLED,
}


def abort(context: grpc.ServicerContext, error: FsError) -> NoReturn:
    """End a call with the error's status."""
    context.set_trailing_metadata(((CODE_KEY, str(int(error.code))),))
    context.abort(grpc.StatusCode[error.code.grpc], str(error)[:_MAX_DETAILS])
    raise AssertionError("abort returned")


def to_error(error: grpc.RpcError, where: str) -> FsError:
    """What a failed call means; only errors of gRPC itself name ``where``."""
    if not isinstance(error, grpc.Call):
        return FsError(Code.INTERNAL, f"{where}: {error}")
    details = error.details() or error.code().name
    for key, value in error.trailing_metadata() or ():
        if key == CODE_KEY and isinstance(value, str) and value.isdecimal():
            return FsError(code_of(int(value)), details)
    return FsError(_FOREIGN.get(error.code(), Code.INTERNAL), f"{where}: {details}")
