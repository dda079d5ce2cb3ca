"""Frames without IO: any cut of the bytes gives the same frames, any damage is found."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fireflyfs import limits
from fireflyfs.checksum import crc32c
from fireflyfs.errors import Code, FsError
from fireflyfs.net.frame import (
    HEADER_SIZE,
    REPLY,
    REQUEST,
    Frame,
    FrameReader,
    Header,
    encode_frame,
)
from fireflyfs.net.messages import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def encoded(
    method: int = Method.CONTROL,
    request_id: int = 7,
    body: object = None,
    payload: Iterable[bytes] = (),
    code: int = 0,
) -> bytes:
    kind = REPLY if code else REQUEST
    parts = encode_frame(kind, method, request_id, body, list(payload), code=code, timeout_ms=0)
    return b"".join(parts)


def feed(
    reader: FrameReader, data: bytes, step: Callable[[], int] = lambda: 1 << 30
) -> list[Frame]:
    """What a socket would do: give at most ``step()`` bytes at a time."""
    frames = []
    while True:
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
        if not data:
            return frames
        room = reader.buffers()
        assert room
        assert all(view.nbytes for view in room)
        count = 0
        for view in room:
            part = data[: min(view.nbytes, max(1, step() - count))]
            view[: len(part)] = part
            count += len(part)
            data = data[len(part) :]
            if len(part) < view.nbytes:
                break
        reader.received(count)


FRAMES = st.lists(
    st.tuples(
        st.sampled_from([Method.PING, Method.CONTROL, Method.READ, Method.UPDATE]),
        st.integers(0, 2**64 - 1),
        st.none() | st.lists(st.integers(0, 9)) | st.binary(max_size=40_000),
        st.lists(st.binary(max_size=40_000), max_size=3),
    ),
    max_size=5,
)


@given(FRAMES, st.integers(1, 50_000), st.integers())
def test_frames_survive_any_cut_of_the_stream(
    frames: list[tuple[Method, int, object, list[bytes]]], largest: int, seed: int
) -> None:
    draw = random.Random(seed)
    stream = b"".join(encoded(m, i, b, p) for m, i, b, p in frames)
    got = feed(FrameReader(), stream, lambda: draw.randint(1, largest))
    assert [(f.header.method, f.header.request_id, f.body, bytes(f.payload)) for f in got] == [
        (m, i, b, b"".join(p)) for m, i, b, p in frames
    ]


@given(st.binary(max_size=300))
@example(b"\xff" * 48)
@example(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b" " * 48)
def test_random_bytes_are_malformed_or_incomplete(data: bytes) -> None:
    reader = FrameReader()
    try:
        found: object = feed(reader, data)
    except FsError as error:
        found = error.code
    assert found in ([], Code.MALFORMED)


@given(
    st.sampled_from([Method.CONTROL, Method.PING]),
    st.binary(min_size=1, max_size=100),
    st.data(),
)
def test_every_changed_bit_is_found(method: Method, payload: bytes, data: st.DataObject) -> None:
    good = encoded(method, 3, ["name", 1, b"x"], [payload])
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FsError) as caught:
        feed(FrameReader(), bytes(bad))
    assert caught.value.code is Code.MALFORMED


def forge(**fields: int) -> bytes:
    """A header whose checksum is right and whose fields are whatever an enemy likes."""
    values = dict.fromkeys(
        ("version", "kind", "method", "flags", "code", "body", "payload", "body_sum"), 0
    ) | {"version": 1, "kind": REQUEST, "method": 2, "id": 0, "ms": 0, "sum": 0, "zero": 0}
    values |= fields
    head = struct.pack("<4sBBHHHIIIQIII", b"FFLY", *values.values())
    return head + struct.pack("<I", crc32c(head))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"kind": 0},
        {"kind": 3},
        {"flags": 1},
        {"code": 5},
        {"zero": 1},
        {"body": limits.MAX_FRAME_BODY + 1},
        {"payload": limits.MAX_FRAME_PAYLOAD + 1},
        {"payload": 0xFFFFFFFF, "body": 0xFFFFFFFF},
        {"method": 3, "sum": 1},
    ],
    ids=str,
)
def test_forged_headers_allocate_nothing(fields: dict[str, int]) -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        with pytest.raises(FsError) as caught:
            feed(reader, forge(**fields))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert caught.value.code is Code.MALFORMED


def test_the_header_is_where_wire_md_says() -> None:
    data = encoded(Method.UPDATE, 0x1122334455667788, [1, 2], [b"abc"], code=305)
    assert len(data) == HEADER_SIZE + 3 + 3
    assert data[0:4] == b"FFLY"
    assert data[4:6] == bytes([1, REPLY])
    assert data[6:8] == (4).to_bytes(2, "little")
    assert data[8:10] == bytes(2)
    assert data[10:12] == (305).to_bytes(2, "little")
    assert data[12:16] == (3).to_bytes(4, "little")
    assert data[16:20] == (3).to_bytes(4, "little")
    assert data[20:24] == crc32c(b"\x92\x01\x02").to_bytes(4, "little")
    assert data[24:32] == (0x1122334455667788).to_bytes(8, "little")
    assert data[32:44] == bytes(12)
    assert data[44:48] == crc32c(data[:44]).to_bytes(4, "little")
    assert data[48:] == b"\x92\x01\x02abc"


def test_the_payload_goes_where_the_destination_says() -> None:
    buffers = [bytearray(b"." * 5), bytearray(b"." * 100_000), bytearray(b"." * 10)]
    views = [memoryview(buffer) for buffer in buffers]
    payload = random.Random(1).randbytes(50_000)
    asked: list[Header] = []

    def place(header: Header) -> list[memoryview]:
        asked.append(header)
        return views

    frame = feed(FrameReader(place), encoded(Method.READ, 9, None, [payload]), lambda: 999)[0]
    assert [header.request_id for header in asked] == [9]
    assert not frame.payload
    assert b"".join(buffers)[:50_000] == payload
    assert b"".join(buffers)[50_000:] == b"." * 50_015


@given(st.integers(1, 60_000), st.integers(1, 20_000), st.booleans())
def test_a_diverted_payload_leaves_the_buffer_alone(
    before: int, step: int, is_summed: bool
) -> None:
    buffer = bytearray(50_000)
    method = Method.CONTROL if is_summed else Method.READ
    stream = encoded(method, 9, b"b" * 20_000, [b"p" * 50_000]) + encoded(request_id=10)
    reader = FrameReader(lambda _: [memoryview(buffer)])
    assert feed(reader, stream[:before], lambda: step) == []
    reader.divert(8)
    reader.divert(9)
    held = bytes(buffer)
    arrived_header = before >= HEADER_SIZE
    frames = feed(reader, stream[before:], lambda: step)
    assert [frame.header.request_id for frame in frames] == [9, 10]
    if arrived_header:
        assert bytes(buffer) == held
    else:
        assert bytes(buffer) == b"p" * 50_000


def test_our_own_messages_over_the_limits_are_refused() -> None:
    part = memoryview(bytes(limits.MIB))
    with pytest.raises(FsError) as caught:
        encode_frame(REQUEST, Method.READ, 1, None, [part] * 65)
    assert caught.value.code is Code.INVALID
    with pytest.raises(FsError):
        encode_frame(REQUEST, Method.READ, 1, bytes(limits.MAX_FRAME_BODY))


def test_a_reader_knows_whether_it_is_inside_a_frame() -> None:
    reader = FrameReader()
    data = encoded(body=[1], payload=[b"x"])
    assert not reader.is_inside_frame
    for cut in (1, HEADER_SIZE, HEADER_SIZE + 1):
        fresh = FrameReader()
        feed(fresh, data[:cut])
        assert fresh.is_inside_frame
    feed(reader, data)
    assert not reader.is_inside_frame


def test_the_example_in_wire_md_is_true() -> None:
    text = (Path(__file__).parents[3] / "proto" / "wire.md").read_text()
    block = text.split("### An example")[1].split("```")[1]
    lines = [line.split("  ")[0] for line in block.strip().splitlines()]
    made = encode_frame(REQUEST, Method.PING, 7, [1], [b"hi"], timeout_ms=5000)
    assert bytes.fromhex(" ".join(lines)) == b"".join(made)
