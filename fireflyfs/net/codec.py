"""MessagePack, strictly, and message dataclasses to and from it: ``msgpack`` is imported here only.

A message is the list of its fields, in order. Decoding accepts nil, booleans, integers, UTF-8
strings, byte strings and lists; ``from_wire`` then checks every field against its annotation.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from fireflyfs import limits
from fireflyfs.errors import Code, FsError

if typing.TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

MAX_LIST = limits.MAX_BATCH + 1
"""One more than a batch: unaligned data of a full frame has one more checksum than sub-blocks."""
MAX_INT = (1 << 63) - 1


def encode(value: object) -> bytes:
    """Raises FsError(INTERNAL) for what the wire cannot carry: a defect of the caller."""
    try:
        packed: bytes = msgpack.packb(value, default=_shallow)
    except (TypeError, ValueError, OverflowError) as error:
        raise FsError(Code.INTERNAL, "a message cannot be encoded") from error
    return packed


def decode(data: Buffer) -> object:
    """One value that fills ``data`` exactly. Raises FsError(MALFORMED)."""
    try:
        value: object = msgpack.unpackb(
            data,
            raw=False,
            max_str_len=limits.MAX_FRAME_BODY,
            max_bin_len=limits.MAX_FRAME_BODY,
            max_array_len=MAX_LIST,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise FsError(Code.MALFORMED, "a body that is not valid MessagePack") from error
    return value


def to_wire(message: object) -> list[object]:
    """The list of a message's fields; nested messages become lists too."""
    return [_plain(value) for value in _shallow(message)]


def from_wire(cls: type[T], value: object) -> T:
    """Check ``value`` and make the message. Raises FsError(MALFORMED) naming the field."""
    kind: Any = cls
    message: T = _message_check(kind)(value, cls.__name__)
    return message


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value] if value and _is_nested(value[0]) else value
    return to_wire(value) if dataclasses.is_dataclass(value) else value


def _is_nested(value: object) -> bool:
    return dataclasses.is_dataclass(value) or isinstance(value, list)


def _shallow(message: object) -> tuple[object, ...]:
    """For the packer, which asks again for each message inside."""
    cls: Any = type(message)
    return _fields_of(cls)(message)


@functools.cache
def _fields_of(cls: type) -> Callable[[object], tuple[object, ...]]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a message")
    names = [f.name for f in dataclasses.fields(cls)]
    getter = operator.attrgetter(*names)
    if len(names) == 1:
        return lambda message: (getter(message),)
    return getter


_Check = Callable[[object, str], Any]
"""(value, where) -> the checked value; ``where`` is for the error only."""


def _malformed(where: str, what: str, value: object) -> FsError:
    return FsError(Code.MALFORMED, f"{where} must be {what}, not {type(value).__name__}")


def _check_int(value: object, where: str) -> int:
    if type(value) is int and 0 <= value <= MAX_INT:
        return value
    raise _malformed(where, "an integer from 0 to 2^63-1", value)


def _check_bool(value: object, where: str) -> bool:
    if value is True or value is False:
        return value
    raise _malformed(where, "a boolean", value)


def _check_str(value: object, where: str) -> str:
    if type(value) is str:
        return value
    raise _malformed(where, "a string", value)


def _check_bytes(value: object, where: str) -> bytes:
    if type(value) is bytes:
        return value
    raise _malformed(where, "bytes", value)


def _check_int_list(value: object, where: str) -> list[int]:
    """The common list, without a call for each item."""
    if type(value) is not list or len(value) > MAX_LIST:
        raise _malformed(where, "a list", value)
    for item in value:
        if type(item) is not int or not 0 <= item <= MAX_INT:
            raise _malformed(where, "a list of integers from 0 to 2^63-1", item)
    return value


def _list_check(check_item: _Check) -> _Check:
    def check(value: object, where: str) -> list[object]:
        if type(value) is not list or len(value) > MAX_LIST:
            raise _malformed(where, "a list", value)
        return [check_item(item, where) for item in value]

    return check


_SIMPLE: dict[object, _Check] = {
    int: _check_int,
    bool: _check_bool,
    str: _check_str,
    bytes: _check_bytes,
    list[int]: _check_int_list,
}


def _check_for(kind: Any) -> _Check:
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple
    if typing.get_origin(kind) is list:
        return _list_check(_check_for(typing.get_args(kind)[0]))
    return _message_check(kind)


@functools.cache
def _message_check(cls: type) -> _Check:
    """The check of one dataclass, compiled from its annotations at first use. Fields with defaults
    may be missing at the end."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    checks = [(_check_for(hints[f.name]), f"{cls.__name__}.{f.name}") for f in fields]
    required = sum(f.default is dataclasses.MISSING for f in fields)

    def check(value: object, where: str) -> object:
        if type(value) is not list or not required <= len(value) <= len(checks):
            raise _malformed(where, f"a list of the {len(checks)} fields of {cls.__name__}", value)
        return cls(*[c(item, name) for item, (c, name) in zip(value, checks, strict=False)])

    return check
