"""Frames: encoding, and decoding without IO. ``proto/wire.md`` documents every byte.

``FrameReader`` says where the next bytes go (``buffers``) and is told how many came (``received``):
the payload of a frame goes from the socket straight to where it is wanted. Every length is checked
against the limits, under the header's own checksum, before a byte is allocated for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fireflyfs import limits
from fireflyfs.checksum import crc32c
from fireflyfs.errors import Code, FsError
from fireflyfs.net import codec
from fireflyfs.net.messages import Method

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC = b"FFLY"
VERSION = 1
REQUEST = 1
REPLY = 2

_FIELDS = struct.Struct("<4sBBHHHIIIQIII")
_SUM = struct.Struct("<I")
HEADER_SIZE = _FIELDS.size + _SUM.size
assert HEADER_SIZE == 48

MAX_TIMEOUT_MS = 0xFFFFFFFF
SUMMED_METHODS = frozenset({Method.PING, Method.CONTROL})
"""Their payload has its CRC32C in the header. The other methods' messages carry one CRC32C for each
piece of the payload, which go with the bytes to the medium."""

_STAGE_SIZE = 16 * limits.KIB
"""Headers and small bodies are received here; at most this much of a payload is copied."""
_MAX_VECTORS = 64


class Header(NamedTuple):
    kind: int
    method: int
    code: int
    body_length: int
    payload_length: int
    body_sum: int
    request_id: int
    timeout_ms: int
    """Requests: how long the caller waits from now on; 0 in replies."""
    payload_sum: int


@dataclass(slots=True)
class Frame:
    header: Header
    body: object
    payload: memoryview
    """Empty when the payload went to buffers that the destination named."""


Destination = Callable[[Header], Sequence[memoryview] | None]
"""Where a payload goes: buffers of at least its length together, or None for a new one."""

_EMPTY = memoryview(b"")


def encode_frame(
    kind: int,
    method: int,
    request_id: int,
    body: object,
    payload: Sequence[Buffer] = (),
    *,
    code: int = 0,
    timeout_ms: int = 0,
) -> list[memoryview]:
    """The buffers to send, in order; the payload's own are not copied.

    Raises FsError(INVALID) for a body or payload over the limits.
    """
    packed = b"" if body is None else codec.encode(body)
    views = [view for part in payload if (view := memoryview(part).cast("B")).nbytes]
    payload_length = sum(view.nbytes for view in views)
    if len(packed) > limits.MAX_FRAME_BODY or payload_length > limits.MAX_FRAME_PAYLOAD:
        raise FsError(
            Code.INVALID,
            f"a message of {len(packed)} + {payload_length} bytes is over the limits of "
            f"{limits.MAX_FRAME_BODY} + {limits.MAX_FRAME_PAYLOAD}",
        )
    payload_sum = 0
    if method in SUMMED_METHODS:
        for view in views:
            payload_sum = crc32c(view, payload_sum)
    head = _FIELDS.pack(
        MAGIC,
        VERSION,
        kind,
        method,
        0,
        code,
        len(packed),
        payload_length,
        crc32c(packed),
        request_id,
        timeout_ms,
        payload_sum,
        0,
    )
    views.insert(0, memoryview(head + _SUM.pack(crc32c(head)) + packed))
    return views


def decode_header(data: memoryview) -> Header:
    """Check the 48 bytes of a header. Raises FsError(MALFORMED) saying what is wrong."""
    (
        magic,
        version,
        kind,
        method,
        flags,
        code,
        body_length,
        payload_length,
        body_sum,
        request_id,
        timeout_ms,
        payload_sum,
        reserved,
    ) = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise _malformed("the frame's magic is wrong")
    if _SUM.unpack_from(data, _FIELDS.size)[0] != crc32c(data[: _FIELDS.size]):
        raise _malformed("the header's checksum is wrong")
    if version != VERSION:
        raise _malformed(f"protocol version {version}, we speak {VERSION}")
    if kind not in (REQUEST, REPLY) or flags or reserved or (code and kind == REQUEST):
        raise _malformed("the header has a value that this version does not know")
    if body_length > limits.MAX_FRAME_BODY or payload_length > limits.MAX_FRAME_PAYLOAD:
        raise _malformed(f"lengths over the limits: {body_length} + {payload_length}")
    if payload_sum and method not in SUMMED_METHODS:
        raise _malformed("a payload checksum where the message carries them")
    return Header(
        kind,
        method,
        code,
        body_length,
        payload_length,
        body_sum,
        request_id,
        timeout_ms,
        payload_sum,
    )


class FrameReader:
    """Cuts one connection's bytes into frames. Use: while ``next_frame()`` is None, receive into
    ``buffers()`` and say ``received(count)``. After an FsError the connection is beyond repair."""

    def __init__(self, destination: Destination | None = None) -> None:
        self._destination = destination
        self._stage = memoryview(bytearray(_STAGE_SIZE))
        self._start = 0
        self._end = 0
        self._header: Header | None = None
        self._body = _EMPTY
        self._payload = _EMPTY
        self._parts: list[memoryview] = []
        """The payload's buffers, whole: kept for its checksum."""
        self._missing: list[memoryview] = []
        """What is still to be filled of body and payload."""

    @property
    def is_inside_frame(self) -> bool:
        """Part of a frame has come and the rest has not."""
        return self._header is not None or self._end > self._start

    def buffers(self) -> list[memoryview]:
        """Where the next bytes go, in order: never empty."""
        if self._missing:
            return self._missing[:_MAX_VECTORS]
        if self._start:  # at most a part of a header is left: move it to the front
            rest = bytes(self._stage[self._start : self._end])
            self._stage[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return [self._stage[self._end :]]

    def received(self, count: int) -> None:
        if self._missing:
            self._fill(count)
        else:
            self._end += count

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None if bytes are missing. Raises FsError(MALFORMED)."""
        if self._header is None:
            if self._end - self._start < HEADER_SIZE:
                return None
            self._begin()
        if self._missing and self._end > self._start:
            self._take_staged()
        return None if self._missing else self._finish()

    def divert(self, request_id: int) -> None:
        """The buffers named for this frame must not be touched any more: if its payload is just
        arriving, the rest of it goes nowhere."""
        header = self._header
        if header is None or header.request_id != request_id or not self._missing:
            return
        arriving = sum(view.nbytes for view in self._missing)
        body_rest = max(0, arriving - header.payload_length)
        keep = [self._missing[0]] if body_rest else []
        self._parts = []
        self._missing = [*keep, memoryview(bytearray(arriving - body_rest))]

    def _begin(self) -> None:
        head = self._stage[self._start : self._start + HEADER_SIZE]
        header = decode_header(head)
        self._header = header
        self._start += HEADER_SIZE
        self._body = memoryview(bytearray(header.body_length))
        self._payload, self._parts = self._place(header)
        self._missing = [view for view in (self._body, *self._parts) if view.nbytes]

    def _place(self, header: Header) -> tuple[memoryview, list[memoryview]]:
        if not header.payload_length:
            return _EMPTY, []
        named = self._destination(header) if self._destination else None
        if named is None:
            fresh = memoryview(bytearray(header.payload_length))
            return fresh, [fresh]
        return _EMPTY, _cut(named, header.payload_length)

    def _take_staged(self) -> None:
        while self._missing and self._end > self._start:
            count = min(self._missing[0].nbytes, self._end - self._start)
            self._missing[0][:count] = self._stage[self._start : self._start + count]
            self._start += count
            self._fill(count)

    def _fill(self, count: int) -> None:
        missing = self._missing
        done = 0
        while done < len(missing) and count >= missing[done].nbytes:
            count -= missing[done].nbytes
            done += 1
        del missing[:done]
        if count:
            missing[0] = missing[0][count:]

    def _finish(self) -> Frame:
        header, body, parts = self._header, self._body, self._parts
        assert header is not None
        frame = Frame(header, None, self._payload)
        self._header, self._body, self._payload, self._parts = None, _EMPTY, _EMPTY, []
        if crc32c(body) != header.body_sum:
            raise _malformed("the body's checksum is wrong")
        if header.method in SUMMED_METHODS and parts:
            _check_payload(header, parts)
        if header.body_length:
            frame.body = codec.decode(body)
        return frame


def _cut(buffers: Sequence[memoryview], length: int) -> list[memoryview]:
    """The first ``length`` bytes of the buffers."""
    parts = []
    for buffer in buffers:
        if not length:
            break
        parts.append(buffer[:length])
        length -= parts[-1].nbytes
    assert not length, "the destination is too small"
    return parts


def _check_payload(header: Header, parts: list[memoryview]) -> None:
    value = 0
    for part in parts:
        value = crc32c(part, value)
    if value != header.payload_sum:
        raise _malformed("the payload's checksum is wrong")


def _malformed(what: str) -> FsError:
    return FsError(Code.MALFORMED, what)
