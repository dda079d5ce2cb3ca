"""The namespace in plain Python: what every operation must answer."""

from __future__ import annotations

from dataclasses import dataclass, field

ROOT = 1


class Refused(Exception):
    """With the name of the errno."""


@dataclass
class Node:
    kind: str
    """``d``, ``f`` or ``l``."""
    nlink: int = 1
    parent: int = 0
    entries: dict[bytes, int] = field(default_factory=dict)
    length: int = 0
    mode: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    open_by: set[int] = field(default_factory=set)


class Model:
    def __init__(self) -> None:
        self.nodes = {ROOT: Node("d", parent=ROOT)}

    def links(self, inode: int) -> int:
        node = self.nodes[inode]
        if node.kind != "d":
            return node.nlink
        return 2 + sum(self.nodes[child].kind == "d" for child in node.entries.values())

    def is_directory(self, inode: int) -> bool:
        return inode in self.nodes and self.nodes[inode].kind == "d"

    def directory(self, inode: int) -> Node:
        node = self.node(inode)
        if node.kind != "d":
            raise Refused("ENOTDIR")
        return node

    def all_entries(self) -> list[tuple[int, bytes]]:
        return [(at, name) for at in sorted(self.nodes) for name in sorted(self.nodes[at].entries)]

    def node(self, inode: int) -> Node:
        if inode not in self.nodes:
            raise Refused("ESTALE")
        return self.nodes[inode]

    def lookup(self, parent: int, name: bytes) -> int:
        entries = self.directory(parent).entries
        if name not in entries:
            raise Refused("ENOENT")
        return entries[name]

    def check_free(self, parent: int, name: bytes) -> None:
        if name in self.directory(parent).entries:
            raise Refused("EEXIST")

    def add(self, parent: int, name: bytes, inode: int, node: Node) -> None:
        self.nodes[inode] = node
        self.nodes[parent].entries[name] = inode
        node.parent = parent

    def check_link(self, inode: int, parent: int, name: bytes) -> None:
        node = self.node(inode)
        if node.kind == "d":
            raise Refused("EPERM")
        self.check_free(parent, name)
        if not node.nlink:
            raise Refused("ENOENT")

    def link(self, inode: int, parent: int, name: bytes) -> None:
        self.check_link(inode, parent, name)
        self.nodes[inode].nlink += 1
        self.nodes[parent].entries[name] = inode

    def unlink(self, parent: int, name: bytes) -> None:
        inode = self.lookup(parent, name)
        if self.nodes[inode].kind == "d":
            raise Refused("EISDIR")
        del self.nodes[parent].entries[name]
        self._drop(inode)

    def rmdir(self, parent: int, name: bytes) -> None:
        inode = self.lookup(parent, name)
        if self.nodes[inode].kind != "d":
            raise Refused("ENOTDIR")
        if self.nodes[inode].entries:
            raise Refused("ENOTEMPTY")
        del self.nodes[parent].entries[name]
        del self.nodes[inode]

    def rename(self, parent: int, name: bytes, into: int, to: bytes, flags: int) -> None:
        inode = self.lookup(parent, name)
        target = self.directory(into).entries.get(to)
        if target is None and flags == 2:
            raise Refused("ENOENT")
        if target is not None and flags == 1:
            raise Refused("EEXIST")
        if target == inode:
            return
        self._check_loop(inode, into)
        if flags == 2:
            assert target is not None
            self._check_loop(target, parent)
            self._put(parent, name, target)
        else:
            if target is not None:
                self._replace(inode, target)
            del self.nodes[parent].entries[name]
        self._put(into, to, inode)

    def _put(self, parent: int, name: bytes, inode: int) -> None:
        self.nodes[parent].entries[name] = inode
        if self.nodes[inode].kind == "d":
            self.nodes[inode].parent = parent

    def _check_loop(self, inode: int, into: int) -> None:
        while into != ROOT:
            if into == inode:
                raise Refused("EINVAL")
            into = self.nodes[into].parent

    def _replace(self, inode: int, target: int) -> None:
        source_is, target_is = (self.nodes[i].kind == "d" for i in (inode, target))
        if source_is and not target_is:
            raise Refused("ENOTDIR")
        if target_is and not source_is:
            raise Refused("EISDIR")
        if not target_is:
            self._drop(target)
        elif self.nodes[target].entries:
            raise Refused("ENOTEMPTY")
        else:
            del self.nodes[target]

    def _drop(self, inode: int) -> None:
        self.nodes[inode].nlink -= 1
        self._forget_unheld(inode)

    def _forget_unheld(self, inode: int) -> None:
        node = self.nodes[inode]
        if not node.nlink and not node.open_by:
            del self.nodes[inode]

    def open(self, inode: int, client: int) -> None:
        node = self.node(inode)
        if node.kind == "l":
            raise Refused("ELOOP")
        if node.kind == "f":
            node.open_by.add(client)

    def close(self, inode: int, client: int, length: int) -> None:
        node = self.nodes.get(inode)
        if node is not None:
            node.open_by.discard(client)
            if node.kind == "f":
                node.length = max(node.length, length)
            if node.kind != "d":
                self._forget_unheld(inode)

    def truncate(self, inode: int, length: int) -> None:
        kind = self.node(inode).kind
        if kind != "f":
            raise Refused("EISDIR" if kind == "d" else "EINVAL")
        self.nodes[inode].length = length
