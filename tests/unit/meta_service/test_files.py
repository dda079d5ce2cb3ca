"""Files, nodes, symbolic links, hard links, removal, attributes."""

from __future__ import annotations

import stat

import pytest

from fireflyfs.limits import MAX_FILE_SIZE, MAX_SYMLINK
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from tests.unit.meta_service.world import CHUNK, ROOT, START, World


@pytest.fixture
async def world() -> World:
    return await World().start()


async def test_root(world: World) -> None:
    root = await world.stat()
    assert stat.S_ISDIR(root.mode)
    assert (stat.S_IMODE(root.mode), root.nlink, root.uid, root.gid) == (0o755, 2, 0, 0)
    await World(world.engine).start()
    assert await world.stat() == root
    assert await world.names() == []


async def test_create_opens_and_describes(world: World) -> None:
    made = await world.create(b"a", mode=0o100640)
    assert made.mode == stat.S_IFREG | 0o640
    assert (made.nlink, made.uid, made.gid, made.length) == (1, 1000, 100, 0)
    assert made.atime == made.mtime == made.ctime == START
    assert made.layout.chunk_size == CHUNK
    assert len(set(made.layout.chains)) == 16
    assert await world.lookup(b"a") == made == await world.stat(made.id)
    assert len(await world.rows(b"S")) == 1


async def test_create_of_an_existing_name(world: World) -> None:
    made = await world.file(b"a")
    again = await world.call(MetaRpc.CREATE, parent=ROOT, name=b"a", mode=0o600)
    assert (again.inode, again.created) == (made, False)
    assert len(await world.rows(b"S")) == 1
    create = MetaRpc.CREATE
    assert await world.fails(create, parent=ROOT, name=b"a", exclusive=True) == "EEXIST"
    await world.mkdir(b"d")
    await world.symlink(b"s", b"a")
    assert await world.fails(create, parent=ROOT, name=b"d") == "EISDIR"
    assert await world.fails(create, parent=ROOT, name=b"s") == "ELOOP"


async def test_a_full_store_takes_no_new_names_but_all_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.file(b"a")
    await world.mkdir(b"d")
    monkeypatch.setattr(world.engine, "has_room", lambda: False)
    for rpc in (MetaRpc.CREATE, MetaRpc.MKNOD, MetaRpc.MKDIR):
        assert await world.fails(rpc, parent=ROOT, name=b"b") == "ENOSPC"
        assert await world.fails(rpc, parent=ROOT, name=b"b") == "ENOSPC"
    assert (await world.call(MetaRpc.CREATE, parent=ROOT, name=b"a")).inode == made
    assert await world.fails(MetaRpc.MKDIR, parent=ROOT, name=b"d") == "EEXIST"
    assert (await world.unlink(b"a")).nlink == 0
    assert await world.names() == [b"d"]


async def test_layouts_differ_by_file_and_need_a_chain(world: World) -> None:
    files = [await world.file(b"%d" % n) for n in range(8)]
    assert len({tuple(f.layout.chains) for f in files}) == 8
    none = World(world.engine, chains=[])
    assert await none.fails(MetaRpc.MKNOD, parent=ROOT, name=b"x") == "EIO"
    assert (await none.mkdir(b"directories need none")).nlink == 2


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
async def test_special_nodes(world: World, kind: int) -> None:
    made = (
        await world.call(MetaRpc.MKNOD, parent=ROOT, name=b"n", mode=kind | 0o600, rdev=0x103)
    ).inode
    assert made.mode == kind | 0o600
    assert made.rdev == (0x103 if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
    assert not made.HasField("layout")
    assert (await world.unlink(b"n")).nlink == 0
    assert len(await world.rows(b"I")) == 1


async def test_mknod_refuses_other_types(world: World) -> None:
    mknod = MetaRpc.MKNOD
    assert await world.fails(mknod, parent=ROOT, name=b"n", mode=stat.S_IFDIR) == "EPERM"
    assert await world.fails(mknod, parent=ROOT, name=b"n", mode=stat.S_IFLNK) == "EINVAL"
    assert await world.fails(mknod, parent=ROOT, name=b"n", mode=0o030000) == "EINVAL"


async def test_symlinks(world: World) -> None:
    made = await world.symlink(b"s", b"../some where")
    assert made.mode == stat.S_IFLNK | 0o777
    assert (made.target, made.length) == (b"../some where", 13)
    assert await world.fails(MetaRpc.SYMLINK, parent=ROOT, name=b"e") == "ENOENT"
    long = b"x" * (MAX_SYMLINK + 1)
    assert await world.fails(MetaRpc.SYMLINK, parent=ROOT, name=b"e", target=long) == "ENAMETOOLONG"
    assert await world.fails(MetaRpc.OPEN, inode=made.id) == "ELOOP"


async def test_hard_links(world: World) -> None:
    made = await world.file(b"a")
    now = world.tick()
    second = await world.link(made.id, b"b")
    assert (second.nlink, second.ctime, second.mtime) == (2, now, START)
    assert (await world.stat()).mtime == now
    assert await world.fails(MetaRpc.LINK, inode=made.id, parent=ROOT, name=b"a") == "EEXIST"
    directory = await world.mkdir(b"d")
    assert await world.fails(MetaRpc.LINK, inode=directory.id, parent=ROOT, name=b"e") == "EPERM"
    assert await world.fails(MetaRpc.LINK, inode=made.id, parent=made.id, name=b"e") == "ENOTDIR"
    assert await world.fails(MetaRpc.LINK, inode=10**9, parent=ROOT, name=b"e") == "ESTALE"
    now = world.tick()
    left = await world.unlink(b"a")
    assert (left.nlink, left.ctime) == (1, now)
    assert (await world.lookup(b"b")).nlink == 1
    assert (await world.unlink(b"b")).nlink == 0
    assert await world.fails(MetaRpc.GET_ATTR, inode=made.id) == "ESTALE"


async def test_unlink_errors(world: World) -> None:
    made = await world.file(b"a")
    await world.mkdir(b"d")
    assert await world.fails(MetaRpc.UNLINK, parent=ROOT, name=b"d") == "EISDIR"
    assert await world.fails(MetaRpc.UNLINK, parent=ROOT, name=b"x") == "ENOENT"
    assert await world.fails(MetaRpc.UNLINK, parent=made.id, name=b"x") == "ENOTDIR"
    assert await world.fails(MetaRpc.UNLINK, parent=10**9, name=b"x") == "ESTALE"


async def test_chmod_and_chown(world: World) -> None:
    made = await world.file(b"a", mode=0o6755)
    now = world.tick()
    changed = await world.setattr(made.id, mode=0o106711)
    assert (changed.mode, changed.ctime) == (stat.S_IFREG | 0o6711, now)
    assert changed.change > made.change
    owned = await world.setattr(made.id, uid=2**32 - 2, gid=2**32 - 1)
    assert (owned.uid, owned.gid, owned.mode) == (2**32 - 2, 2**32 - 1, stat.S_IFREG | 0o711)
    locked = await world.setattr(made.id, mode=0o2644)
    assert (
        await world.setattr(made.id, gid=5)
    ).mode == locked.mode  # mandatory locking, not setgid
    directory = await world.mkdir(b"d", mode=0o2755)
    assert (await world.setattr(directory.id, gid=5)).mode == directory.mode


async def test_times(world: World) -> None:
    made = await world.file(b"a")
    now = world.tick()
    changed = await world.setattr(made.id, atime=-5, mtime=-(2**63))
    assert (changed.atime, changed.mtime, changed.ctime) == (-5, -(2**63), now)
    assert (await world.setattr(made.id, mtime=2**63 - 1, ctime=3)).ctime == 3
    assert (await world.stat(made.id)).mtime == 2**63 - 1


async def test_truncate(world: World) -> None:
    made = await world.file(b"a")
    now = world.tick()
    grown = await world.setattr(made.id, length=MAX_FILE_SIZE)
    assert (grown.length, grown.mtime, grown.ctime) == (MAX_FILE_SIZE, now, now)
    assert (await world.setattr(made.id, length=5, mtime=9)).mtime == 9
    setattr_ = MetaRpc.SET_ATTR
    assert await world.fails(setattr_, inode=made.id, length=MAX_FILE_SIZE + 1) == "EFBIG"
    assert await world.fails(setattr_, inode=ROOT, length=0) == "EISDIR"
    link = await world.symlink(b"s", b"a")
    assert await world.fails(setattr_, inode=link.id, length=0) == "EINVAL"
    assert (await world.stat(made.id)).length == 5


async def test_reports_only_grow(world: World) -> None:
    made = await world.create(b"a")
    report = MetaRpc.REPORT
    now = world.tick()
    reply = await world.call(report, inode=made.id, length=100, mtime=now, durable=True)
    assert (reply.inode.length, reply.inode.mtime, reply.inode.ctime) == (100, now, now)
    same = await world.call(report, inode=made.id, length=50, mtime=START)
    assert (same.inode.length, same.inode.mtime, same.inode.ctime) == (100, now, now)
    assert same.inode.change > reply.inode.change, "a late or coarse clock hides no write"
    nothing = await world.call(report, inode=made.id)
    assert nothing.inode == same.inode
    await world.setattr(made.id, mtime=now + 10**15)
    world.tick()
    late = await world.call(report, inode=made.id, length=50, mtime=world.now - 1)
    assert late.inode.mtime == world.now - 1
    assert await world.fails(report, inode=made.id, length=MAX_FILE_SIZE + 1) == "EFBIG"
    assert await world.fails(report, inode=10**9, length=1) == "ESTALE"
    assert await world.fails(report, inode=ROOT, length=1) == "EINVAL"
    assert (await world.call(report, inode=ROOT, durable=True)).inode.id == ROOT


async def test_a_retried_request_answers_the_same(world: World) -> None:
    caller = pb.Caller(client_id=9, request_id=1)
    fields = {"caller": caller, "parent": ROOT, "name": b"a", "exclusive": True}
    first = await world.call(MetaRpc.CREATE, **fields)
    other = await World(world.engine).start()
    assert await other.call(MetaRpc.CREATE, **fields) == first
    gone = await world.call(
        MetaRpc.UNLINK, caller=pb.Caller(client_id=9, request_id=2), parent=ROOT, name=b"a"
    )
    again = await other.call(
        MetaRpc.UNLINK, caller=pb.Caller(client_id=9, request_id=2), parent=ROOT, name=b"a"
    )
    assert gone == again
    assert await other.fails(MetaRpc.MKDIR, caller=caller, parent=ROOT, name=b"d") == "EINVAL"


async def test_a_late_repeat_of_a_report_does_not_grow_a_file_again(world: World) -> None:
    made = await world.create(b"f")
    caller = pb.Caller(client_id=7, request_id=1 << 40)
    fields = {"caller": caller, "inode": made.id, "length": 1000, "mtime": world.now}
    await world.call(MetaRpc.REPORT, **fields)
    await world.setattr(made.id, length=0)
    other = await World(world.engine).start()
    await other.call(MetaRpc.REPORT, **fields)
    assert (await world.stat(made.id)).length == 0
