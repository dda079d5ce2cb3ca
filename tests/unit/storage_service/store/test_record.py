from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain_replication.versions import AppliedTag
from fireflyfs.errors import Code, FsError
from storage_service.store.record import (
    EMPTY,
    Block,
    Content,
    Record,
    Redo,
    Version,
    decode,
    decode_redo,
    encode,
    encode_redo,
    places,
)

CHUNK = b"c" * 16
TAGS = (AppliedTag(1, 2, 3), AppliedTag(1 << 62, 9, 4))


def _sums(count: int, salt: int = 0) -> bytes:
    return b"".join((i * 7 + salt).to_bytes(4, "little") for i in range(count))


def _same(one: Record, other: Record) -> bool:
    def flat(version: Version | None) -> object:
        if version is None:
            return None
        content = version.content
        place = content.block.location if content.block else None
        known = (version.number, version.chain_version, version.tags, version.removed)
        return known, place, content.length, content.sums, content.redo_upto

    return flat(one.committed) == flat(other.committed) and flat(one.pending) == flat(other.pending)


@given(st.integers(0, 9), st.integers(0, 9), st.data())
def test_a_pending_version_in_the_same_block_is_kept_by_its_difference(
    old: int, new: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, min(old, new)))
    end = data.draw(st.integers(first, new))
    tail = min(old - first, new - end)
    base = _sums(old)
    sums = base[: first * 4] + _sums(new - first - tail, 99)
    sums += base[(old - tail) * 4 :] if tail else b""
    block = Block(3, 5)
    committed = Version(7, 1, Content(block, 100, base, 4), TAGS)
    changed = (first, len(sums) // 4 - tail)
    pending = Version(8, 2, Content(block, 200, sums, 6), TAGS[:1], changed=changed)
    record = Record(committed, pending)
    found = decode(CHUNK, encode(CHUNK, record))
    assert _same(found, record)
    assert found.committed is not None
    assert found.pending is not None
    assert found.committed.content.block is found.pending.content.block


@pytest.mark.parametrize(
    "record",
    [
        Record(Version(1, 2, Content(Block(0, 0), 1, _sums(1)), TAGS)),
        Record(None, Version(1, 2, EMPTY, removed=True)),
        Record(Version(4, 1, EMPTY), Version(5, 1, Content(Block(1, 2), 9, _sums(1)))),
        Record(
            Version(4, 1, Content(Block(1, 3), 9, _sums(1))),
            Version(5, 1, Content(Block(2, 0), 70, _sums(5))),
        ),
    ],
)
def test_a_record_is_read_back(record: Record) -> None:
    raw = encode(CHUNK, record)
    assert _same(decode(CHUNK, raw), record)
    found = {location for location, _ in places(CHUNK, raw).blocks}
    assert found == {block.location for block in record.blocks()}


def test_any_flipped_bit_and_any_other_chunk_is_noticed() -> None:
    raw = encode(CHUNK, Record(Version(1, 2, Content(Block(0, 0), 1, _sums(1)), TAGS)))
    for at in range(len(raw)):
        bad = raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
        with pytest.raises(FsError) as error:
            decode(CHUNK, bad)
        assert error.value.code is Code.CHECKSUM
    with pytest.raises(FsError, match="checksum"):
        decode(b"d" * 16, raw)
    with pytest.raises(FsError, match="format"):
        decode(CHUNK, raw[:10])


def test_a_small_change_of_a_large_chunk_is_a_small_record() -> None:
    block = Block(14, 0)
    sums = _sums(4096)
    committed = Version(1, 1, Content(block, 1 << 26, sums))
    after = sums[:40] + b"abcd" + sums[44:]
    pending = Version(2, 1, Content(block, 1 << 26, after, 1), changed=(10, 11))
    whole = len(encode(CHUNK, Record(committed)))
    assert len(encode(CHUNK, Record(committed, pending))) < whole + 100


def test_a_redo_is_read_back() -> None:
    found = decode_redo(9, encode_redo(Redo(9, (3, 4), 77, b"bytes")))
    assert (found.sequence, found.location, found.offset, found.data) == (9, (3, 4), 77, b"bytes")
