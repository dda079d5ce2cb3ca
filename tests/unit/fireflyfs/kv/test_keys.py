"""The key map: keys sort as what they stand for, ranges hold exactly their kind, none overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from fireflyfs.ids import ChainId, ClientId, InodeId, NodeId
from fireflyfs.kv import keys
from fireflyfs.routing import Role

if TYPE_CHECKING:
    from collections.abc import Callable

numbers = st.integers(0, (1 << 64) - 1)
names = st.binary(min_size=1, max_size=255)

OF_INODE: list[Callable[[InodeId], bytes]] = [
    keys.inode_key,
    keys.dir_links_key,
    keys.dir_times_key,
    keys.orphan_key,
    keys.garbage_key,
]


@given(numbers, numbers)
def test_numbers_sort(first: int, second: int) -> None:
    for key in OF_INODE:
        a, b = key(InodeId(first)), key(InodeId(second))
        assert (a < b) == (first < second)
        assert keys.inode_of_key(a) == first


@given(numbers, names, numbers, names)
def test_entries_sort_by_directory_then_name(p: int, name: bytes, q: int, other: bytes) -> None:
    first, second = keys.dentry_key(InodeId(p), name), keys.dentry_key(InodeId(q), other)
    assert (first < second) == ((p, name) < (q, other))
    assert (keys.inode_of_key(first), keys.name_of_key(first)) == (p, name)


@given(numbers, numbers, names, names)
def test_ranges_hold_their_own_and_no_other(a: int, b: int, name: bytes, later: bytes) -> None:
    begin, end = keys.dentry_range(InodeId(a))
    assert (begin <= keys.dentry_key(InodeId(b), name) < end) == (a == b)
    begin, end = keys.dentry_range(InodeId(a), name)
    assert (begin <= keys.dentry_key(InodeId(a), later) < end) == (later > name)
    begin, end = keys.xattr_range(InodeId(a))
    assert (begin <= keys.xattr_key(InodeId(b), name) < end) == (a == b)
    begin, end = keys.session_range(InodeId(a))
    assert (begin <= keys.session_key(InodeId(b), ClientId(7)) < end) == (a == b)
    begin, end = keys.request_range(ClientId(a))
    assert (begin <= keys.request_key(ClientId(b), 7) < end) == (a == b)


def test_kinds_are_disjoint() -> None:
    inode, client = InodeId(1), ClientId(2)
    ranges = [
        keys.node_range(),
        keys.chain_range(),
        keys.inode_range(),
        keys.prefix_range(b"D"),
        keys.prefix_range(b"X"),
        keys.prefix_range(b"S"),
        keys.prefix_range(b"s"),
        keys.client_range(),
        keys.orphan_range(),
        keys.garbage_range(),
        keys.all_requests_range(),
    ]
    for key in (
        keys.node_key(NodeId(1)),
        keys.chain_key(ChainId(1)),
        keys.inode_key(inode),
        keys.dentry_key(inode, b"name"),
        keys.xattr_key(inode, b"name"),
        keys.session_key(inode, client),
        keys.client_session_key(client, inode),
        keys.client_key(client),
        keys.orphan_key(inode),
        keys.garbage_key(inode),
        keys.request_key(client, 1),
    ):
        assert sum(begin <= key < end for begin, end in ranges) == 1
    for key in (
        keys.CLUSTER_KEY,
        keys.ROUTING_VERSION_KEY,
        keys.node_name_key(Role.STORAGE, "storage-1"),
        keys.dir_links_key(inode),
        keys.dir_times_key(inode),
        keys.counter_key("inode"),
    ):
        assert not any(begin <= key < end for begin, end in ranges)


@given(st.binary(min_size=1).filter(lambda p: p.rstrip(b"\xff")), st.binary())
def test_prefix_range(prefix: bytes, key: bytes) -> None:
    begin, end = keys.prefix_range(prefix)
    assert (begin <= key < end) == key.startswith(prefix)
    assert begin <= prefix + key < end
    assert keys.after(key) > key
