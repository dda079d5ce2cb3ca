"""Every limit of the system, in one place; both sides of the wire check them."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

SUB_BLOCK = 16 * KIB
"""Bytes covered by one checksum: a 4 KiB read verifies at most one of these at each end."""
MIN_CHUNK_SIZE = 64 * KIB
MAX_CHUNK_SIZE = 64 * MIB
DEFAULT_CHUNK_SIZE = MIB
MAX_FILE_SIZE = 1 << 60
MAX_STRIPE = 64
"""Chains that one file may be spread over."""

MAX_NAME = 255
"""Bytes in one path component (limits.h NAME_MAX)."""
MAX_SYMLINK = 4095
MAX_LINKS = 65000
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 64 * KIB
MAX_XATTR_TOTAL = 64 * KIB
"""Names of all extended attributes of one inode, as listxattr(2) returns them."""
MAX_LISTING_PAGE = 4096

MAX_FRAME_BODY = 4 * MIB
MAX_FRAME_PAYLOAD = 64 * MIB
MAX_SEGMENTS = 4096
MAX_BATCH = 4096
"""Entries in one batched request."""
MAX_HANDSHAKE = 4 * KIB

MAX_KV_KEY = 9_900
"""FoundationDB takes 10,000 bytes; an engine may put a name of its own before every key."""
MAX_KV_VALUE = 100_000
MAX_KV_TRANSACTION = 10_000_000
MAX_KV_SECONDS = 5.0

MAX_REPLICAS = 5
MAX_NODES = 4096
MAX_NODE_TARGETS = 256
MAX_NODE_ADDRESSES = 16
MAX_ROUTING_WAIT = 30.0
"""Seconds that a request for newer routing is held at most."""
MAX_APPLIED_TAGS = 64
"""Clients whose last update is remembered with a chunk (exactly-once)."""

HEARTBEAT_INTERVAL = 1.0
FAILURE_HEARTBEATS = 3
"""Heartbeats missed before a node is taken out of its chains."""
LEASE_SECONDS = 2.5
"""A storage node answers for this long after sending the last accepted heartbeat; it must stay
below HEARTBEAT_INTERVAL * FAILURE_HEARTBEATS, or a fenced node could answer beside another."""
assert LEASE_SECONDS < HEARTBEAT_INTERVAL * FAILURE_HEARTBEATS
