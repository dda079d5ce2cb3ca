"""What a transaction holds: footprints meet as their keys do, counters wrap as on FoundationDB."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fireflyfs.kv.atomic import (
    added,
    pack_signed,
    pack_unsigned,
    raised,
    unpack_signed,
    unpack_unsigned,
)
from fireflyfs.kv.buffer import Footprint

SPACE = [bytes((a,)) for a in range(8)]

keys = st.sets(st.sampled_from(SPACE), max_size=3)
ranges = st.lists(
    st.lists(st.sampled_from(SPACE), min_size=2, max_size=2, unique=True).map(
        lambda ends: (min(ends), max(ends))
    ),
    max_size=3,
)
footprints = st.builds(Footprint, keys, ranges)


def members(footprint: Footprint) -> set[bytes]:
    inside = {key for key in SPACE for begin, end in footprint.ranges if begin <= key < end}
    return footprint.keys | inside


@given(footprints, footprints)
def test_footprints_meet_when_they_share_a_key(first: Footprint, second: Footprint) -> None:
    assert first.meets(second) == bool(members(first) & members(second))
    assert first.meets(second) == second.meets(first)
    assert [first.meets_key(key) for key in SPACE] == [key in members(first) for key in SPACE]


@given(
    st.sets(st.binary(max_size=300)),
    st.lists(st.tuples(st.binary(max_size=300), st.binary(min_size=1, max_size=300))),
)
def test_footprint_survives_encoding(keys: set[bytes], ranges: list[tuple[bytes, bytes]]) -> None:
    footprint = Footprint(keys, ranges)
    assert Footprint.decode(footprint.encode()) == footprint


def test_longest_keys_can_be_encoded() -> None:
    longest = bytes(10_010)
    footprint = Footprint({longest}, [(longest, longest + b"\x00")])
    assert Footprint.decode(footprint.encode()) == footprint


def test_counters() -> None:
    assert unpack_signed(None) == unpack_unsigned(None) == 0
    assert unpack_signed(added(None, -3)) == -3
    assert unpack_signed(added(pack_signed(-1), 1)) == 0
    assert unpack_signed(added(pack_signed((1 << 63) - 1), 1)) == -(1 << 63)
    assert unpack_signed(added(b"\x05", 1)) == 6
    assert raised(pack_unsigned(7), 5) == pack_unsigned(7)
    assert raised(None, 5) == pack_unsigned(5)
