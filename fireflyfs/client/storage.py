"""Chunks on their chains: reads from any replica, exactly-once updates at the head.

Whatever fails for a reason that time or another replica mends is tried again until the deadline
(``attempts.DEADLINE`` seconds); then the error names its cause.
"""

from __future__ import annotations

import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING

from fireflyfs import checksum, limits
from fireflyfs.client.attempts import DEADLINE, Attempts
from fireflyfs.client.reading import Range, read_from
from fireflyfs.client.together import together
from fireflyfs.client.turns import Turns
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import chunk_index, chunk_owner
from fireflyfs.net.codec import from_wire, to_wire
from fireflyfs.net.messages import (
    FlushRequest,
    Method,
    QueryReply,
    QueryRequest,
    Tag,
    UpdateKind,
    UpdateReply,
    UpdateRequest,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from fireflyfs.client.cluster import Cluster
    from fireflyfs.ids import ChainId, ChunkId, InodeId, NodeId
    from fireflyfs.routing import Chain, ChainTarget, Node

logger = logging.getLogger(__name__)

READ_ATTEMPT = 2.0
"""Seconds for one replica to answer a read before another is asked."""
UPDATE_ATTEMPT = 5.0
"""Seconds for an update to pass its chain before the (possibly new) head is asked again."""
FLUSH_ATTEMPT = 20.0
"""Seconds for the media of a chain to take everything."""


class StorageClient:
    """Safe for many tasks at once; updates of one chunk take turns."""

    def __init__(self, cluster: Cluster, deadline: float = DEADLINE) -> None:
        self._cluster = cluster
        self._deadline = deadline
        self._sequence = itertools.count(1)
        self._turns = Turns()

    # Reading

    async def read_into(
        self, chain: ChainId, chunk: ChunkId, offset: int, buffer: memoryview
    ) -> int:
        """Fill ``buffer`` from ``offset`` (bytes) of a chunk; what the chunk lacks becomes zeros.

        Returns the bytes found. Raises FsError: the last failure, at the deadline.
        """
        wanted = Range(chain, chunk, offset, buffer)
        attempts = self._attempts(f"read {wanted}")
        while True:
            routing = self._cluster.routing
            try:
                return await self._read_any(routing.chain(chain), wanted, attempts)
            except FsError as error:
                await attempts.failed(error, routing.version)

    async def _read_any(self, chain: Chain, wanted: Range, attempts: Attempts) -> int:
        """One round over the serving replicas."""
        failure = _unavailable(chain)
        replicas = _replicas(chain, wanted.chunk)
        while replicas:
            target = replicas.pop(0)
            try:
                return await self._read_one(target, wanted, attempts)
            except FsError as error:
                if not error.retry:
                    raise
                logger.info("replica failed, asking another: %s", error)
                failure = error
            if failure.code is Code.CHUNK_DIRTY:
                replicas.sort(key=lambda t: t is not chain.tail)  # never dirty for long
        raise failure

    async def _read_one(self, target: ChainTarget, wanted: Range, attempts: Attempts) -> int:
        node = self._cluster.routing.node(target.node_id)
        timeout = attempts.timeout(READ_ATTEMPT)
        [outcome] = await read_from(self._cluster.peers, node, [wanted], timeout)
        if isinstance(outcome, FsError):
            raise outcome
        return outcome

    async def read_batch(self, ranges: Sequence[Range]) -> list[int]:
        """Read many ranges: one frame to each node that serves some of them.

        What fails there is read again on its own. Returns the bytes found of each; raises as
        ``read_into``.
        """
        found: dict[int, int] = {}
        await together(
            [partial(self._read_share, share, ranges, found) for share in self._shares(ranges)]
        )
        missing = [i for i in range(len(ranges)) if i not in found]
        await together([partial(self._read_again, i, ranges[i], found) for i in missing])
        return [found[i] for i in range(len(ranges))]

    def _shares(self, ranges: Sequence[Range]) -> Iterable[tuple[Node, list[int]]]:
        """Indexes of ``ranges`` by the node to ask, cut at what one frame carries."""
        routing = self._cluster.routing
        shares: dict[NodeId, list[int]] = {}
        for i, wanted in enumerate(ranges):
            chain = routing.chains.get(wanted.chain)
            replicas = _replicas(chain, wanted.chunk) if chain else []
            if replicas and replicas[0].node_id in routing.nodes:
                shares.setdefault(replicas[0].node_id, []).append(i)
        for node_id, indexes in shares.items():
            for part in _frames(indexes, ranges):
                yield routing.nodes[node_id], part

    async def _read_share(
        self, share: tuple[Node, list[int]], ranges: Sequence[Range], found: dict[int, int]
    ) -> None:
        node, indexes = share
        try:
            outcomes = await read_from(
                self._cluster.peers, node, [ranges[i] for i in indexes], READ_ATTEMPT
            )
        except FsError as error:
            logger.info("batch failed, reading one by one: %s", error)
            return
        pairs = zip(indexes, outcomes, strict=True)
        found.update((i, outcome) for i, outcome in pairs if not isinstance(outcome, FsError))

    async def _read_again(self, index: int, wanted: Range, found: dict[int, int]) -> None:
        found[index] = await self.read_into(
            wanted.chain, wanted.chunk, wanted.offset, wanted.buffer
        )

    # Updating

    async def write(self, chain: ChainId, chunk: ChunkId, offset: int, data: memoryview) -> None:
        """Put ``data`` at ``offset`` (bytes) of a chunk, on every serving replica.

        Raises:
            FsError: ``NO_SPACE``; or the last failure at the deadline: it may have been written.
        """
        sums = checksum.checksums(offset, data)
        await self._update(chain, chunk, UpdateKind.WRITE, offset, len(data), sums, data)

    async def truncate(self, chain: ChainId, chunk: ChunkId, length: int) -> None:
        """Make a chunk exactly ``length`` bytes long. Raises as ``write``."""
        await self._update(chain, chunk, UpdateKind.TRUNCATE, 0, length)

    async def remove(self, chain: ChainId, chunk: ChunkId) -> None:
        """Raises as ``write``. A chunk that does not exist is removed already."""
        await self._update(chain, chunk, UpdateKind.REMOVE, 0, 0)

    async def _update(
        self,
        chain: ChainId,
        chunk: ChunkId,
        kind: UpdateKind,
        offset: int,
        length: int,
        sums: Sequence[int] = (),
        data: memoryview | None = None,
    ) -> None:
        async with self._turns.of(chunk):
            # The number is drawn in turn: the head takes a lower one than the last for a repeat.
            tag = Tag(self._cluster.client_id, next(self._sequence))

            async def attempt(current: Chain, head: Node, timeout: float) -> None:
                request = UpdateRequest(
                    chain, current.version, chunk, kind, offset, length, list(sums), tag
                )
                reply = await self._cluster.peers.call(
                    head.addresses,
                    Method.UPDATE,
                    to_wire(request),
                    [data] if data is not None else (),
                    timeout=timeout,
                )
                from_wire(UpdateReply, reply.body)

            what = f"{kind.name.lower()} chunk {chunk_owner(chunk)}.{chunk_index(chunk)}"
            await self._at_head(chain, what, UPDATE_ATTEMPT, attempt)

    # Asking about chains

    async def query(
        self, chain: ChainId, owner: InodeId, first_index: int, limit: int
    ) -> tuple[list[tuple[int, int]], bool]:
        """Chunks of ``owner`` on a chain with an index from ``first_index`` on, by index:
        (index, length in bytes) of at most ``limit``; and whether these were the last."""
        found: list[tuple[int, int]] = []
        end = False

        async def attempt(current: Chain, head: Node, timeout: float) -> None:
            nonlocal end
            request = QueryRequest(current.chain_id, owner, first_index, limit)
            reply = await self._cluster.peers.call(
                head.addresses, Method.QUERY, to_wire(request), timeout=timeout
            )
            answer = from_wire(QueryReply, reply.body)
            found[:] = [_index_and_length(row) for row in answer.chunks]
            end = answer.end

        await self._at_head(chain, f"query inode {owner}", READ_ATTEMPT, attempt)
        return found, end

    async def flush(self, chains: Iterable[ChainId]) -> None:
        """Every update of these chains acknowledged before is on the medium of every serving
        replica when this returns. Raises FsError: the last failure, at the deadline."""
        await together([partial(self._flush, chain) for chain in chains])

    async def _flush(self, chain: ChainId) -> None:
        async def attempt(current: Chain, head: Node, timeout: float) -> None:
            request = FlushRequest(current.chain_id, current.version)
            await self._cluster.peers.call(
                head.addresses, Method.FLUSH, to_wire(request), timeout=timeout
            )

        await self._at_head(chain, "flush", FLUSH_ATTEMPT, attempt)

    async def _at_head(
        self,
        chain: ChainId,
        what: str,
        longest: float,
        attempt: Callable[[Chain, Node, float], Awaitable[None]],
    ) -> None:
        """Attempt something at the head of a chain, whoever that is by then, until it works."""
        attempts = self._attempts(f"{what} of chain {chain}")
        while True:
            routing = self._cluster.routing
            try:
                current = routing.chain(chain)
                if current.head is None:
                    raise _unavailable(current)
                head = routing.node(current.head.node_id)
                await attempt(current, head, attempts.timeout(longest))
            except FsError as error:
                if error.retry:
                    logger.info("%s of chain %d failed, trying again: %s", what, chain, error)
                await attempts.failed(error, routing.version)
            else:
                return

    def _attempts(self, what: str) -> Attempts:
        return Attempts(self._cluster, what, self._deadline)


def _replicas(chain: Chain, chunk: ChunkId) -> list[ChainTarget]:
    """Serving replicas in the order to ask. Each chunk prefers one (by a hash that differs from
    client to client), so that readers spread and a chunk is cached once, not on every replica."""
    serving = chain.serving
    first = hash(chunk) % len(serving) if serving else 0
    return [*serving[first:], *serving[:first]]


def _unavailable(chain: Chain) -> FsError:
    states = ", ".join(f"node {t.node_id} {t.state.name.lower()}" for t in chain.targets)
    return FsError(
        Code.CHAIN_UNAVAILABLE,
        f"no replica of chain {chain.chain_id} serves (version {chain.version}: {states})",
    )


def _frames(indexes: Sequence[int], ranges: Sequence[Range]) -> Iterable[list[int]]:
    part: list[int] = []
    size = 0
    for i in indexes:
        length = len(ranges[i].buffer)
        if part and (size + length > limits.MAX_FRAME_PAYLOAD or len(part) == limits.MAX_BATCH):
            yield part
            part, size = [], 0
        part.append(i)
        size += length
    if part:
        yield part


def _index_and_length(row: Sequence[int]) -> tuple[int, int]:
    if len(row) != 2:
        raise FsError(Code.MALFORMED, f"a chunk was answered as {len(row)} numbers, not 2")
    return row[0], row[1]
