"""The codec: what it lets in, and that nothing else gets through."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.net import codec
from fireflyfs.net.messages import (
    ForwardRequest,
    ListChunksReply,
    ReadItem,
    ReadReply,
    ReadRequest,
    ReadResult,
    Tag,
    UpdateRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

INTS = st.integers(0, codec.MAX_INT)
READS = st.builds(
    ReadRequest,
    st.lists(st.builds(ReadItem, INTS, st.binary(max_size=16), INTS, INTS), max_size=5),
)
RESULTS = st.builds(
    ReadReply,
    st.lists(st.builds(ReadResult, INTS, INTS, INTS, st.lists(INTS), st.text()), max_size=5),
)
FORWARDS = st.builds(
    ForwardRequest,
    *[INTS] * 3,
    st.binary(max_size=16),
    *[INTS] * 4,
    st.lists(INTS),
    st.builds(Tag, INTS, INTS),
    st.lists(st.lists(INTS, max_size=3), max_size=4),
)
SIMPLE = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def outcome(function: Callable[[], object]) -> object:
    try:
        return function()
    except FsError as error:
        return error.code


@given(st.one_of(READS, RESULTS, FORWARDS))
def test_a_message_comes_back_as_it_was(message: object) -> None:
    wire = codec.decode(codec.encode(message))
    assert wire == codec.to_wire(message)
    assert codec.from_wire(type(message), wire) == message


@given(VALUES)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert codec.decode(codec.encode(value)) == value


@given(st.binary(max_size=200))
def test_garbage_is_malformed_or_a_value(data: bytes) -> None:
    value = outcome(lambda: codec.decode(data))
    assert value is Code.MALFORMED or isinstance(
        value, (type(None), bool, int, float, str, bytes, list, dict)
    )


@given(VALUES)
def test_any_value_is_a_message_or_malformed(value: object) -> None:
    for cls in (ReadRequest, UpdateRequest, ForwardRequest, ListChunksReply):
        message = outcome(functools.partial(codec.from_wire, cls, value))
        assert message is Code.MALFORMED or codec.to_wire(message) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\x81\x01\x02",
        b"\xa2\xff\xfe",
        b"\x91" * 100_000,
        msgpack.packb(msgpack.Timestamp(1)),
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb([0] * (codec.MAX_LIST + 1)),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_hostile_bodies_are_malformed(data: bytes) -> None:
    with pytest.raises(FsError) as caught:
        codec.decode(data)
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    ("cls", "value", "field"),
    [
        (Tag, None, "Tag"),
        (Tag, [1], "fields of Tag"),
        (Tag, [1, 2, 3], "fields of Tag"),
        (Tag, [1, -1], "Tag.sequence"),
        (Tag, [1, 2**63], "Tag.sequence"),
        (Tag, [True, 2], "Tag.client"),
        (Tag, [1.0, 2], "Tag.client"),
        (ReadRequest, [[[1, "text", 0, 0]]], "ReadItem.chunk"),
        (ReadRequest, [[[1, b"", 0, 0]] * (limits.MAX_BATCH + 2)], "ReadRequest.items"),
        (ReadReply, [[[0, 0, 0, [1, "2"]]]], "ReadResult.checksums"),
        (ReadReply, [{}], "ReadReply.results"),
    ],
)
def test_the_error_names_the_field(cls: type, value: object, field: str) -> None:
    with pytest.raises(FsError, match=field) as caught:
        codec.from_wire(cls, value)
    assert caught.value.code is Code.MALFORMED


def test_fields_with_defaults_may_be_missing_at_the_end() -> None:
    assert codec.from_wire(ReadResult, [1, 2, 3, []]) == ReadResult(1, 2, 3, [])


def test_what_cannot_travel_is_our_own_defect() -> None:
    @dataclass
    class Odd:
        what: object

    for value in (Odd({1, 2}), object(), 2**70):
        with pytest.raises(FsError) as caught:
            codec.encode(value)
        assert caught.value.code is Code.INTERNAL
