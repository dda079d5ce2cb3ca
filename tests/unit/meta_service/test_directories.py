"""Directories: links, times, setgid, removal, listing; renames of everything."""

from __future__ import annotations

import stat

import pytest

from fireflyfs.rpc.methods import MetaRpc
from tests.unit.meta_service.world import ROOT, START, World

NOREPLACE, EXCHANGE = 1, 2


@pytest.fixture
async def world() -> World:
    return await World().start()


async def test_links_and_times(world: World) -> None:
    now = world.tick()
    a = await world.mkdir(b"a", mode=0o40700)
    assert (a.mode, a.nlink, a.length) == (stat.S_IFDIR | 0o700, 2, 4096)
    root = await world.stat()
    assert (root.nlink, root.mtime, root.ctime, root.atime) == (3, now, now, START)
    now = world.tick()
    await world.file(b"f", a.id)
    inside = await world.stat(a.id)
    assert (inside.nlink, inside.mtime, inside.ctime) == (2, now, now)
    assert inside.change > a.change
    assert (await world.stat()).mtime == now - 10**9
    now = world.tick()
    await world.unlink(b"f", a.id)
    assert (await world.stat(a.id)).mtime == now
    await world.rmdir(b"a")
    assert (await world.stat()).nlink == 2
    assert await world.fails(MetaRpc.GET_ATTR, inode=a.id) == "ESTALE"
    assert [k for kind in (b"L", b"T", b"V") for k, _ in await world.rows(kind) if k[-1] != 1] == []


async def test_an_explicit_mtime_holds_until_the_next_entry(world: World) -> None:
    a = await world.mkdir(b"a")
    await world.file(b"f", a.id)
    for mtime in (5, -5, START + 10**15):
        set_at = world.tick()
        changed = await world.setattr(a.id, mtime=mtime)
        assert (changed.mtime, changed.ctime) == (mtime, set_at)
        await world.setattr(a.id, mode=0o711, atime=1)
        assert (await world.stat(a.id)).mtime == mtime
        now = world.tick()
        await world.file(b"%d" % mtime, a.id)
        after = await world.stat(a.id)
        assert (after.mtime, after.ctime, after.atime) == (now, now, 1)


async def test_setgid_directories(world: World) -> None:
    a = await world.mkdir(b"a")
    await world.setattr(a.id, gid=55, mode=0o2775)
    b = await world.mkdir(b"b", a.id)
    assert (b.gid, b.mode) == (55, stat.S_IFDIR | 0o2755)
    f = await world.file(b"f", a.id)
    assert (f.gid, f.mode) == (55, stat.S_IFREG | 0o644)
    assert (await world.symlink(b"s", b"f", b.id)).gid == 55


async def test_rmdir_errors(world: World) -> None:
    a = await world.mkdir(b"a")
    await world.file(b"f", a.id)
    rmdir = MetaRpc.RMDIR
    assert await world.fails(rmdir, parent=ROOT, name=b"a") == "ENOTEMPTY"
    assert await world.fails(rmdir, parent=a.id, name=b"f") == "ENOTDIR"
    assert await world.fails(rmdir, parent=ROOT, name=b"x") == "ENOENT"
    await world.unlink(b"f", a.id)
    await world.rmdir(b"a")
    for rpc in (MetaRpc.MKDIR, MetaRpc.MKNOD, MetaRpc.CREATE, MetaRpc.LOOKUP):
        assert await world.fails(rpc, parent=a.id, name=b"x") == "ESTALE"
    assert await world.fails(MetaRpc.READ_DIR, inode=a.id) == "ESTALE"


async def test_mkdir_errors(world: World) -> None:
    f = await world.file(b"f")
    assert await world.fails(MetaRpc.MKDIR, parent=ROOT, name=b"f") == "EEXIST"
    assert await world.fails(MetaRpc.MKDIR, parent=f.id, name=b"d") == "ENOTDIR"
    assert await world.fails(MetaRpc.LOOKUP, parent=f.id, name=b"d") == "ENOTDIR"
    assert await world.fails(MetaRpc.READ_DIR, inode=f.id) == "ENOTDIR"


async def test_listing_in_pages(world: World) -> None:
    names = sorted([b"%04d" % n for n in range(50)] + [b"\xff" * 255, b"\x01", b"z" * 254])
    for name in names:
        await world.file(name)
    d = await world.mkdir(b"dir")
    await world.file(b"in it", d.id)
    await world.mkdir(b"sub", d.id)
    names = sorted([*names, b"dir"])
    for limit in (0, 1, 7, len(names), 5000):
        assert await world.names(limit=limit) == names
    reply = await world.call(MetaRpc.READ_DIR, inode=ROOT)
    entries = {e.name: e.inode for e in reply.entries}
    assert entries[b"dir"] == await world.stat(d.id)
    assert entries[b"dir"].nlink == 3
    assert entries[b"0000"] == await world.lookup(b"0000")


async def test_a_page_of_long_targets_is_cut_by_bytes(world: World) -> None:
    names = [b"%04d" % n for n in range(300)]
    for name in names:
        await world.symlink(name, b"t" * 4095)
    reply = await world.call(MetaRpc.READ_DIR, inode=ROOT, limit=4096)
    assert reply.ByteSize() < 2 << 20
    assert not reply.end
    assert await world.names() == names


async def test_rename_moves(world: World) -> None:
    a, b = await world.mkdir(b"a"), await world.mkdir(b"b")
    f = await world.file(b"f", a.id)
    now = world.tick()
    reply = await world.rename(b"f", b"g", a.id, b.id)
    assert (reply.inode.id, reply.inode.ctime, reply.inode.mtime) == (f.id, now, START)
    assert not reply.HasField("replaced")
    assert (await world.names(a.id), await world.names(b.id)) == ([], [b"g"])
    for inode in (a.id, b.id):
        parent = await world.stat(inode)
        assert (parent.mtime, parent.ctime) == (now, now)
    await world.rename(b"a", b"a", ROOT, b.id)
    assert ((await world.stat()).nlink, (await world.stat(b.id)).nlink) == (3, 3)
    await world.rename(b"a", b"c", b.id, b.id)
    assert ((await world.stat()).nlink, (await world.stat(b.id)).nlink) == (3, 3)


async def test_rename_replaces(world: World) -> None:
    a, b = await world.file(b"a"), await world.file(b"b")
    reply = await world.rename(b"a", b"b")
    assert (reply.replaced.id, reply.replaced.nlink) == (b.id, 0)
    assert (await world.lookup(b"b")).id == a.id
    d, e = await world.mkdir(b"d"), await world.mkdir(b"e")
    await world.rename(b"d", b"e")
    assert (await world.lookup(b"e")).id == d.id
    assert (await world.stat()).nlink == 3
    assert await world.fails(MetaRpc.GET_ATTR, inode=e.id) == "ESTALE"
    full, empty = await world.mkdir(b"full"), await world.mkdir(b"empty")
    await world.file(b"x", full.id)
    rename = MetaRpc.RENAME
    same = {"parent": ROOT, "new_parent": ROOT}
    assert await world.fails(rename, name=b"empty", new_name=b"full", **same) == "ENOTEMPTY"
    assert await world.fails(rename, name=b"b", new_name=b"empty", **same) == "EISDIR"
    assert await world.fails(rename, name=b"empty", new_name=b"b", **same) == "ENOTDIR"
    assert await world.fails(rename, name=b"gone", new_name=b"b", **same) == "ENOENT"
    assert (
        await world.fails(rename, name=b"b", parent=ROOT, new_name=b"b", new_parent=a.id)
        == "ENOTDIR"
    )
    await world.rename(b"empty", b"into", ROOT, full.id)
    assert (await world.stat(full.id)).nlink == 3
    assert (await world.lookup(b"into", full.id)).id == empty.id


async def test_rename_of_two_names_of_one_file_does_nothing(world: World) -> None:
    f = await world.file(b"a")
    await world.link(f.id, b"b")
    before = await world.stat()
    world.tick()
    await world.rename(b"a", b"b")
    assert (await world.names(), await world.stat()) == ([b"a", b"b"], before)
    await world.rename(b"a", b"a")
    assert (await world.stat(f.id)).nlink == 2


async def test_rename_into_its_own_subtree(world: World) -> None:
    a = await world.mkdir(b"a")
    b = await world.mkdir(b"b", a.id)
    c = await world.mkdir(b"c", b.id)
    rename = MetaRpc.RENAME
    for into in (a.id, b.id, c.id):
        assert (
            await world.fails(rename, parent=ROOT, name=b"a", new_parent=into, new_name=b"x")
            == "EINVAL"
        )
    onto = {"parent": b.id, "name": b"c", "new_parent": ROOT, "new_name": b"a"}
    assert await world.fails(rename, **onto) == "ENOTEMPTY"
    assert await world.fails(rename, **onto, flags=EXCHANGE) == "EINVAL"
    await world.rename(b"c", b"c", b.id, ROOT)
    await world.rename(b"a", b"a", ROOT, c.id)
    assert (
        await world.fails(rename, parent=ROOT, name=b"c", new_parent=b.id, new_name=b"x")
        == "EINVAL"
    )


async def test_rename_flags(world: World) -> None:
    a, d = await world.file(b"a"), await world.mkdir(b"d")
    e = await world.mkdir(b"e", d.id)
    rename = MetaRpc.RENAME
    same = {"parent": ROOT, "new_parent": ROOT}
    assert await world.fails(rename, name=b"a", new_name=b"d", flags=NOREPLACE, **same) == "EEXIST"
    assert await world.fails(rename, name=b"a", new_name=b"a", flags=NOREPLACE, **same) == "EEXIST"
    assert await world.fails(rename, name=b"a", new_name=b"x", flags=EXCHANGE, **same) == "ENOENT"
    for flags in (3, 4, 2**32 - 1):
        assert await world.fails(rename, name=b"a", new_name=b"x", flags=flags, **same) == "EINVAL"
    await world.rename(b"a", b"free", flags=NOREPLACE)
    reply = await world.rename(b"free", b"e", ROOT, d.id, EXCHANGE)
    assert (reply.inode.id, reply.replaced.id) == (a.id, e.id)
    assert (await world.lookup(b"e", d.id)).id == a.id
    assert (await world.lookup(b"free")).id == e.id
    assert ((await world.stat()).nlink, (await world.stat(d.id)).nlink) == (4, 2)
    await world.rename(b"free", b"d", flags=EXCHANGE)
    assert (await world.lookup(b"d")).id == e.id
    assert (await world.stat()).nlink == 4
    await world.rename(b"e", b"d", d.id, ROOT, EXCHANGE)
    assert ((await world.stat()).nlink, (await world.stat(d.id)).nlink) == (3, 3)
