"""The map of every key in the transactional store; nothing else in the system writes a key by hand.

Numbers are unsigned 64-bit big-endian, so that keys sort by number. Names come last and are raw
bytes, so that they sort as ``readdir`` returns them and need no escape. The first byte is the kind;
the kinds are disjoint, and the range of a prefix ends before the next number. No key begins with
FF (FoundationDB's own).

====  ==========================  ===================  ============================================
byte  rest of the key             value                invariant
====  ==========================  ===================  ============================================
C i                               cluster record       written once, when the cluster is made
C p                               8 random bytes       the manager that may write; every one of
                                                       its transactions reads it
C v                               routing version      raised by every transaction on C n and C c
C n   node                        node record          one for each C m
C m   role (1 byte) name          node (8 bytes)       a name in a role is one node, for ever
C c   chain                       chain record         its targets' nodes are in C n
I     inode                       inode record         exists while it has a name or an orphan
                                                       record; root always
D     parent name                 dentry record        parent's I is a directory; the target's I is
                                                       there; links of a file = its D rows
L     inode                       signed counter       directories: 2 + subdirectories (``add``)
V     inode                       signed counter       directories: entries' changes, in ``change``
T     inode                       times record         directories: mtime and ctime by changes of
                                                       entries, written unread: the last commit wins
X     inode name                  xattr record         extended attribute; the inode's I is there
S     inode client                session record       a client has the file open; I is there
s     client inode                empty                mirrors S, for the pruning of a client
K     client                      client record        a client that has sessions; last seen, host
O     inode                       orphan record        no D names it, at least one S does
G     inode                       garbage record       no I, D, S; its chunks are being removed
R     client request              result record        the answer of a committed mutation, for its
                                                       retry; written in the same transaction
N     name                        signed counter       e.g. ``inode``: the next free block of ids
J     name                        lease record         who does a background job, and until when
====  ==========================  ===================  ============================================

Signed and unsigned counters are 8 bytes little-endian (``fireflyfs.kv.atomic``). Records are
versioned by the package that owns them: C by ``chain_replication.manager``, the rest by
``meta_service``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NewType

from fireflyfs.ids import ChainId, ClientId, InodeId, NodeId

if TYPE_CHECKING:
    from fireflyfs.routing import Role

KeyRange = NewType("KeyRange", tuple[bytes, bytes])
"""(begin, end) for ``get_range(*r)`` and ``clear_range(*r)``: ``begin`` is in it, ``end`` not."""

_U64 = struct.Struct(">Q")
_U64_U64 = struct.Struct(">QQ")


def _one(number: int) -> bytes:
    return _U64.pack(number)


def _two(first: int, second: int) -> bytes:
    return _U64_U64.pack(first, second)


def prefix_range(prefix: bytes) -> KeyRange:
    """All keys that begin with ``prefix``, which must not be all FF."""
    stripped = prefix.rstrip(b"\xff")
    return KeyRange((prefix, stripped[:-1] + bytes((stripped[-1] + 1,))))


def after(key: bytes) -> bytes:
    """The smallest key behind ``key``: a page that ended at ``key`` goes on here."""
    return key + b"\x00"


# The cluster: rows of the manager.

CLUSTER_KEY = b"Ci"
PRIMARY_KEY = b"Cp"
ROUTING_VERSION_KEY = b"Cv"


def node_key(node: NodeId) -> bytes:
    return b"Cn" + _one(node)


def node_range() -> KeyRange:
    return prefix_range(b"Cn")


def node_name_key(role: Role, name: str) -> bytes:
    return b"Cm" + bytes((role,)) + name.encode()


def chain_key(chain: ChainId) -> bytes:
    return b"Cc" + _one(chain)


def chain_range() -> KeyRange:
    return prefix_range(b"Cc")


def chain_of_key(key: bytes) -> ChainId:
    return ChainId(_number(key, 2))


def node_of_key(key: bytes) -> NodeId:
    return NodeId(_number(key, 2))


# Inodes and names: rows of the metadata servers.


def inode_key(inode: InodeId) -> bytes:
    return b"I" + _one(inode)


def inode_range() -> KeyRange:
    return prefix_range(b"I")


def inode_of_key(key: bytes) -> InodeId:
    """The inode of an ``I D L T X S O G`` key (of a ``D`` key: the parent)."""
    return InodeId(_number(key, 1))


def dentry_key(parent: InodeId, name: bytes) -> bytes:
    return b"D" + _one(parent) + name


def dentry_range(parent: InodeId, after_name: bytes = b"") -> KeyRange:
    """The entries of a directory, or those behind ``after_name``."""
    begin, end = prefix_range(b"D" + _one(parent))
    return KeyRange((after(begin + after_name) if after_name else begin, end))


def name_of_key(key: bytes) -> bytes:
    """The name of a ``D`` or ``X`` key."""
    return key[9:]


def dir_links_key(inode: InodeId) -> bytes:
    return b"L" + _one(inode)


def dir_changes_key(inode: InodeId) -> bytes:
    return b"V" + _one(inode)


def dir_times_key(inode: InodeId) -> bytes:
    return b"T" + _one(inode)


def xattr_key(inode: InodeId, name: bytes) -> bytes:
    return b"X" + _one(inode) + name


def xattr_range(inode: InodeId) -> KeyRange:
    return prefix_range(b"X" + _one(inode))


# Who has what open, and what is to be removed.


def session_key(inode: InodeId, client: ClientId) -> bytes:
    return b"S" + _two(inode, client)


def session_range(inode: InodeId) -> KeyRange:
    return prefix_range(b"S" + _one(inode))


def client_session_key(client: ClientId, inode: InodeId) -> bytes:
    return b"s" + _two(client, inode)


def client_session_range(client: ClientId) -> KeyRange:
    return prefix_range(b"s" + _one(client))


def inode_of_client_session_key(key: bytes) -> InodeId:
    return InodeId(_number(key, 9))


def client_of_session_key(key: bytes) -> ClientId:
    return ClientId(_number(key, 9))


def client_key(client: ClientId) -> bytes:
    return b"K" + _one(client)


def client_range() -> KeyRange:
    return prefix_range(b"K")


def client_of_key(key: bytes) -> ClientId:
    """The client of an ``s K R`` key."""
    return ClientId(_number(key, 1))


def orphan_key(inode: InodeId) -> bytes:
    return b"O" + _one(inode)


def orphan_range() -> KeyRange:
    return prefix_range(b"O")


def garbage_key(inode: InodeId) -> bytes:
    return b"G" + _one(inode)


def garbage_range() -> KeyRange:
    return prefix_range(b"G")


def request_key(client: ClientId, request: int) -> bytes:
    return b"R" + _two(client, request)


def request_range(client: ClientId) -> KeyRange:
    return prefix_range(b"R" + _one(client))


def all_requests_range() -> KeyRange:
    return prefix_range(b"R")


def request_of_key(key: bytes) -> int:
    return _number(key, 9)


def lease_key(name: str) -> bytes:
    return b"J" + name.encode()


def counter_key(name: str) -> bytes:
    return b"N" + name.encode()


def _number(key: bytes, offset: int) -> int:
    number: int = _U64.unpack_from(key, offset)[0]
    return number
