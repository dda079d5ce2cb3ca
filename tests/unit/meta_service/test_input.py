"""What must be refused, attributes at their limits, and the rows' bytes."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import MAX_XATTR_NAME, MAX_XATTR_TOTAL, MAX_XATTR_VALUE
from fireflyfs.rpc import cluster_pb2
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from meta_service.schema import InodeRow, TimesRow, XattrRow, decode, encode
from meta_service.statfs import usable
from tests.unit.meta_service.world import ROOT, World

GET, SET, LIST, REMOVE = (
    MetaRpc.GET_XATTR,
    MetaRpc.SET_XATTR,
    MetaRpc.LIST_XATTR,
    MetaRpc.REMOVE_XATTR,
)


@pytest.fixture
async def world() -> World:
    return await World().start()


BAD_NAMES = [
    (b"", "EINVAL"),
    (b".", "EINVAL"),
    (b"..", "EINVAL"),
    (b"a/b", "EINVAL"),
    (b"/", "EINVAL"),
    (b"a\0", "EINVAL"),
    (b"x" * 256, "ENAMETOOLONG"),
]


@pytest.mark.parametrize(("name", "refusal"), BAD_NAMES)
async def test_bad_names(world: World, name: bytes, refusal: str) -> None:
    f = await world.file(b"f")
    for rpc in (
        MetaRpc.LOOKUP,
        MetaRpc.CREATE,
        MetaRpc.MKNOD,
        MetaRpc.MKDIR,
        MetaRpc.UNLINK,
        MetaRpc.RMDIR,
    ):
        assert await world.fails(rpc, parent=ROOT, name=name) == refusal
    assert await world.fails(MetaRpc.SYMLINK, parent=ROOT, name=name, target=b"t") == refusal
    assert await world.fails(MetaRpc.LINK, parent=ROOT, name=name, inode=f.id) == refusal
    both = {"parent": ROOT, "new_parent": ROOT}
    assert await world.fails(MetaRpc.RENAME, name=name, new_name=b"g", **both) == refusal
    assert await world.fails(MetaRpc.RENAME, name=b"f", new_name=name, **both) == refusal
    assert await world.names() == [b"f"]


@pytest.mark.parametrize("inode", [0, 2, 2**63, 2**64 - 1])
async def test_numbers_that_are_no_inode(world: World, inode: int) -> None:
    for rpc in (MetaRpc.GET_ATTR, MetaRpc.SET_ATTR, MetaRpc.OPEN, MetaRpc.READ_DIR, LIST):
        assert await world.fails(rpc, inode=inode) == "ESTALE"
    assert await world.fails(MetaRpc.LOOKUP, parent=inode, name=b"x") == "ESTALE"
    assert await world.fails(MetaRpc.CREATE, parent=inode, name=b"x") == "ESTALE"
    assert await world.fails(MetaRpc.CLOSE, inode=inode) == "OK"
    assert await world.rows(b"S") == []


async def test_sessions_need_a_client(world: World) -> None:
    f = await world.file(b"f")
    nobody = pb.Caller(uid=1)
    assert await world.fails(MetaRpc.OPEN, inode=f.id, caller=nobody) == "EINVAL"
    assert await world.fails(MetaRpc.CREATE, parent=ROOT, name=b"g", caller=nobody) == "EINVAL"
    assert await world.fails(MetaRpc.CLOSE, inode=f.id, caller=nobody) == "EINVAL"
    assert await world.fails(MetaRpc.KEEP_ALIVE, client_id=0) == "EINVAL"
    assert await world.fails(MetaRpc.KEEP_ALIVE, client_id=1, host="h" * 256) == "EINVAL"
    assert await world.fails(MetaRpc.READ_DIR, inode=ROOT, after=b"x" * 256) == "ENAMETOOLONG"
    assert await world.fails(MetaRpc.MKDIR, parent=ROOT, name=b"d", caller=nobody) == "OK"


async def test_xattrs(world: World) -> None:
    f = await world.file(b"f")
    now = world.tick()
    await world.call(SET, inode=f.id, name=b"user.b", value=b"\0\1")
    await world.call(SET, inode=f.id, name=b"user.a", value=b"")
    await world.call(SET, inode=f.id, name=b"user.a", value=b"2", flags=2)
    assert (await world.stat(f.id)).ctime == now
    assert (await world.call(GET, inode=f.id, name=b"user.a")).value == b"2"
    assert list((await world.call(LIST, inode=f.id)).names) == [b"user.a", b"user.b"]
    assert await world.fails(SET, inode=f.id, name=b"user.a", flags=1) == "EEXIST"
    assert await world.fails(SET, inode=f.id, name=b"user.c", flags=2) == "ENODATA"
    assert await world.fails(SET, inode=f.id, name=b"user.c", flags=3) == "EINVAL"
    assert await world.fails(GET, inode=f.id, name=b"user.c") == "ENODATA"
    assert await world.fails(REMOVE, inode=f.id, name=b"user.c") == "ENODATA"
    await world.call(REMOVE, inode=f.id, name=b"user.a")
    assert list((await world.call(LIST, inode=f.id)).names) == [b"user.b"]
    await world.unlink(b"f")
    assert await world.rows(b"X") == []
    assert await world.fails(SET, inode=f.id, name=b"user.c") == "ESTALE"


async def test_xattr_limits(world: World) -> None:
    d = await world.mkdir(b"d")
    name = b"user.".ljust(MAX_XATTR_NAME, b"n")
    value = bytes(MAX_XATTR_VALUE)
    await world.call(SET, inode=d.id, name=name, value=value)
    assert (await world.call(GET, inode=d.id, name=name)).value == value
    assert await world.fails(SET, inode=d.id, name=name, value=value + b"x") == "E2BIG"
    assert await world.fails(SET, inode=d.id, name=name + b"x") == "ENAMETOOLONG"
    for bad, refusal in (
        (b"", "EINVAL"),
        (b"user.", "EINVAL"),
        (b"user.a\0", "EINVAL"),
        (b"system.posix_acl_access", "ENOTSUP"),
        (b"plain", "ENOTSUP"),
    ):
        assert await world.fails(SET, inode=d.id, name=bad) == refusal
        assert await world.fails(GET, inode=d.id, name=bad) == refusal
    fits = MAX_XATTR_TOTAL // (MAX_XATTR_NAME + 1)
    for n in range(fits - 1):
        await world.call(SET, inode=d.id, name=b"user.%03d" % n + b"n" * (MAX_XATTR_NAME - 8))
    assert len((await world.call(LIST, inode=d.id)).names) == fits
    assert await world.fails(SET, inode=d.id, name=b"user.one more") == "ENOSPC"


async def test_statfs_and_flush(world: World) -> None:
    await world.call(MetaRpc.FLUSH)
    for number in (1, 2):  # two chains over the same three nodes, whose targets share a disk
        chain = world.manager.status.chains.add(chain_id=number)
        for node, used in ((1, 10), (2, 30), (3, 20)):
            target = cluster_pb2.ChainTargetInfo(node_id=node)
            report = cluster_pb2.TargetReport(used_bytes=used, capacity_bytes=used + 100)
            chain.targets.append(cluster_pb2.TargetStatus(target=target, report=report))
    await world.mkdir(b"d")
    reply = await world.call(MetaRpc.STAT_FS)
    assert (reply.capacity, reply.available, reply.inodes) == ((300 + 120) // 3, 300 // 3, 2)
    await world.rmdir(b"d")
    assert (await world.call(MetaRpc.STAT_FS)).inodes == 1
    assert world.manager.asked == 1
    assert usable(cluster_pb2.GetStatusReply()) == (0, 0)


def test_a_disk_of_several_nodes_is_counted_once() -> None:
    status = cluster_pb2.GetStatusReply()
    chain = status.chains.add(chain_id=1)
    for node in (1, 2, 3):
        target = cluster_pb2.ChainTargetInfo(node_id=node)
        report = cluster_pb2.TargetReport(used_bytes=10, capacity_bytes=310, disk="boot:7")
        chain.targets.append(cluster_pb2.TargetStatus(target=target, report=report))
    assert usable(status) == (110, 100)


I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        InodeRow,
        *[U64] * 4,
        *[I64] * 3,
        rdev=U64,
        target=st.binary(max_size=9),
        chains=st.lists(st.integers(0, 2**32 - 1)).map(tuple),
    )
)
def test_rows_come_back(row: InodeRow) -> None:
    assert decode(InodeRow, encode(row)) == row


def test_rows_of_other_versions() -> None:
    row = InodeRow(1, 2, 3, 4, 5, 6, 7)
    older = msgpack.packb([1, *dataclasses.astuple(row)[:7]])
    assert decode(InodeRow, older) == row
    for bad in (
        msgpack.packb([2, 1, 1]),
        msgpack.packb([1, 1, 1, 1]),
        msgpack.packb([1]),
        msgpack.packb([]),
        msgpack.packb(7),
        b"",
        b"\xc1",
        encode(XattrRow(b"")),
    ):
        with pytest.raises(FsError) as caught:
            decode(TimesRow, bad)
        assert caught.value.code is Code.INTERNAL
