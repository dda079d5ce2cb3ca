"""The verbs of the kernel, one method each: translate, ask, translate back."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

import pyfuse3
import trio

from fireflyfs.clock import file_time_ns
from fireflyfs.errors import Code, FsError
from fireflyfs.rpc import meta_pb2 as pb
from fireflyfs.rpc.methods import MetaRpc
from fuse_client import translate
from fuse_client.files import Files
from fuse_client.handles import Handles, OpenDirectory, OpenFile
from fuse_client.inodes import Inodes
from fuse_client.listing import list_directory
from fuse_client.translate import answers, caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyfuse3 import (
        EntryAttributes,
        FileHandleT,
        FileInfo,
        FileNameT,
        FlagT,
        InodeT,
        ModeT,
        ReaddirToken,
        RequestContext,
        SetattrFields,
        StatvfsData,
        XAttrNameT,
    )

    from fireflyfs.client.meta import MetaClient
    from fireflyfs.client.storage import StorageClient

logger = logging.getLogger(__name__)

CAPABILITIES = b"security.capability"
"""The kernel asks for it before every write(2), to take it off."""


class MountOperations(pyfuse3.Operations):
    """The kernel has checked names and permissions (default_permissions); it keeps writes,
    truncates and directory changes of one inode apart. Servers and chains do the rest."""

    supports_dot_lookup = False

    def __init__(self, meta: MetaClient, storage: StorageClient) -> None:
        super().__init__()
        self._meta = meta
        self.inodes = Inodes()
        self.files = Files(meta, storage, self.inodes)
        self._open_files: Handles[OpenFile] = Handles()
        self._open_directories: Handles[OpenDirectory] = Handles()

    def _entry(self, inode: pb.Inode, parent: int) -> EntryAttributes:
        return self.inodes.looked_up(inode, parent).attributes()

    # Names

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        request = pb.LookupRequest(parent=parent_inode, name=name, caller=caller(ctx))
        reply = await self._meta.call(MetaRpc.LOOKUP, request)
        return self._entry(reply.inode, parent_inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            self.inodes.forget(inode, count)

    @answers
    async def mknod(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        rdev: int,
        ctx: RequestContext,
    ) -> EntryAttributes:
        request = pb.MknodRequest(
            parent=parent_inode, name=name, mode=mode, rdev=rdev, caller=caller(ctx)
        )
        reply = await self._meta.call(MetaRpc.MKNOD, request)
        return self._entry(reply.inode, parent_inode)

    @answers
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        request = pb.MkdirRequest(parent=parent_inode, name=name, mode=mode, caller=caller(ctx))
        reply = await self._meta.call(MetaRpc.MKDIR, request)
        return self._entry(reply.inode, parent_inode)

    @answers
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        request = pb.SymlinkRequest(
            parent=parent_inode, name=name, target=target, caller=caller(ctx)
        )
        reply = await self._meta.call(MetaRpc.SYMLINK, request)
        return self._entry(reply.inode, parent_inode)

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        known = self.inodes.get(inode) or await self.files.refresh(inode, caller(ctx))
        if not stat.S_ISLNK(known.inode.mode):
            raise FsError(Code.INVALID, f"inode {inode} is not a symbolic link")
        return known.inode.target

    @answers
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        request = pb.LinkRequest(
            inode=inode, parent=new_parent_inode, name=new_name, caller=caller(ctx)
        )
        reply = await self._meta.call(MetaRpc.LINK, request)
        known = self.inodes.looked_up(reply.inode, new_parent_inode)
        known.changed_by_us(reply.inode)
        return known.attributes()

    @answers
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        request = pb.UnlinkRequest(parent=parent_inode, name=name, caller=caller(ctx))
        reply = await self._meta.call(MetaRpc.UNLINK, request)
        self._lost_name(reply.inode)

    @answers
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        request = pb.RmdirRequest(parent=parent_inode, name=name, caller=caller(ctx))
        await self._meta.call(MetaRpc.RMDIR, request)

    @answers
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~(pyfuse3.RENAME_EXCHANGE | pyfuse3.RENAME_NOREPLACE):
            raise FsError(Code.INVALID, f"rename with flags {flags:#x}")
        request = pb.RenameRequest(
            parent=parent_inode_old,
            name=name_old,
            new_parent=parent_inode_new,
            new_name=name_new,
            flags=flags,
            caller=caller(ctx),
        )
        reply = await self._meta.call(MetaRpc.RENAME, request)
        self._moved(reply.inode, parent_inode_new)
        if reply.HasField("replaced"):
            self._lost_name(reply.replaced)

    def _moved(self, inode: pb.Inode, parent: int) -> None:
        known = self.inodes.get(inode.id)
        if known is not None:
            known.changed_by_us(inode)
            known.parent = parent

    def _lost_name(self, inode: pb.Inode) -> None:
        """What is still open or looked up shows its new number of names."""
        known = self.inodes.get(inode.id)
        if known is not None:
            known.changed_by_us(inode)

    # Attributes

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return (await self.files.refresh(inode, caller(ctx))).attributes()

    @answers
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        known = self.inodes.get(inode) or await self.files.refresh(inode, caller(ctx))
        request = translate.changes(inode, attr, fields, file_time_ns())
        request.caller.CopyFrom(caller(ctx))
        await self.files.change(known, request)
        return known.attributes()

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return translate.statistics(await self._meta.call(MetaRpc.STAT_FS, pb.Empty()))

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        translate.check_attribute(name)
        known = self.inodes.get(inode)
        now = trio.current_time()
        if name == CAPABILITIES and known is not None and now < known.plain_until:
            raise FsError(Code.NO_ATTRIBUTE, f"inode {inode} has no capabilities")
        request = pb.GetXattrRequest(inode=inode, name=name, caller=caller(ctx))
        try:
            return (await self._meta.call(MetaRpc.GET_XATTR, request)).value
        except FsError as error:
            if name == CAPABILITIES and known and error.code is Code.NO_ATTRIBUTE:
                known.plain_until = now + translate.CACHE_SECONDS
            raise

    @answers
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        translate.check_attribute(name)
        request = pb.SetXattrRequest(inode=inode, name=name, value=value, caller=caller(ctx))
        await self._meta.call(MetaRpc.SET_XATTR, request)
        if (known := self.inodes.get(inode)) is not None:
            known.plain_until = 0.0

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        request = pb.ListXattrRequest(inode=inode, caller=caller(ctx))
        return list((await self._meta.call(MetaRpc.LIST_XATTR, request)).names)

    @answers
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        translate.check_attribute(name)
        request = pb.RemoveXattrRequest(inode=inode, name=name, caller=caller(ctx))
        await self._meta.call(MetaRpc.REMOVE_XATTR, request)

    # Files

    @answers
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        request = pb.CreateRequest(
            parent=parent_inode,
            name=name,
            mode=mode,
            exclusive=bool(flags & os.O_EXCL),
            caller=caller(ctx),
        )
        file, inode = await self.files.create(request, flags)
        entry = self._entry(inode, parent_inode)
        return pyfuse3.FileInfo(fh=self._open_files.add(file), keep_cache=False), entry

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        known = self.inodes.get(inode) or await self.files.refresh(inode, caller(ctx))
        file, keep = await self.files.open(known, flags, caller(ctx))
        return pyfuse3.FileInfo(fh=self._open_files.add(file), keep_cache=keep)

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        # pyfuse3 takes any buffer: a bytearray saves the copy that bytes would cost.
        return await self.files.read(self._open_files.get(fh), off, size)  # type: ignore[return-value]

    @answers
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        await self.files.write(self._open_files.get(fh), off, buf)
        return len(buf)

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        await self.files.report(self._open_files.get(fh).known)

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self.files.sync(self._open_files.get(fh).known)

    @answers
    async def release(self, fh: FileHandleT) -> None:
        await self.files.close(self._open_files.remove(fh))

    # Directories

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return self._open_directories.add(OpenDirectory(inode))

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        directory = self._open_directories.get(fh)
        await list_directory(self._meta, self.inodes, directory, start_id, token)

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        self._open_directories.remove(fh)

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._meta.call(MetaRpc.FLUSH, pb.Empty())
