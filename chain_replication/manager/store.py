"""The manager's rows in the transactional store, and the fence around them.

One process may act as the manager. Whoever starts takes over: it writes a random *term* into the
primary row. Every later transaction of a manager reads that row, so that the former one, wherever
it runs and however long it was paused, cannot change anything any more.

A record is MessagePack: the version of its format, then its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chain_replication.manager.records import ChainRecord, Change, NodeRecord, Table
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from fireflyfs.kv import keys
from fireflyfs.kv.retry import transact
from fireflyfs.net.codec import decode, encode, from_wire
from fireflyfs.routing import Chain, ChainTarget, Node, PublicState, Role

if TYPE_CHECKING:
    from fireflyfs.kv.base import Engine, Transaction

T = TypeVar("T")

_FORMAT = 1
_TIMEOUT = 5.0


@dataclass(slots=True)
class _NodeRow:
    format: int
    role: int
    name: str
    generation: int
    addresses: list[str]
    alive: bool
    targets: list[int]
    former: list[int]


@dataclass(slots=True)
class _TargetRow:
    target_id: int
    node_id: int
    state: int


@dataclass(slots=True)
class _ChainRow:
    format: int
    version: int
    targets: list[_TargetRow]
    last_change: str


@dataclass(slots=True)
class _ClusterRow:
    format: int
    cluster_id: str


class Store:
    """The rows, as the manager of one term sees them.

    Every method raises FsError: ``NOT_SERVING`` once another manager has taken over (a caller tries
    again, and finds that one), the codes of ``transact`` when the store cannot be reached.
    """

    def __init__(self, engine: Engine, cluster_id: str, term: bytes) -> None:
        """``term``: 8 random bytes, drawn by this process."""
        self._engine = engine
        self._cluster_id = cluster_id
        self._term = term

    async def take_over(self) -> Table:
        """Become the manager. Raises FsError(CONFIG) if the store is of another cluster."""

        async def write(tr: Transaction) -> None:
            row = await tr.get(keys.CLUSTER_KEY)
            if row is None:
                tr.set(keys.CLUSTER_KEY, encode(_ClusterRow(_FORMAT, self._cluster_id)))
            else:
                self._check_cluster(_read(_ClusterRow, row))
            tr.set(keys.PRIMARY_KEY, self._term)

        await transact(self._engine, write, timeout=_TIMEOUT)
        return await self.load()

    async def load(self) -> Table:
        """The whole table, at one snapshot."""
        return await transact(self._engine, self._load, timeout=_TIMEOUT)

    async def verify(self) -> None:
        """Nobody had taken over when this was called."""
        await transact(self._engine, self._check_term, timeout=_TIMEOUT)

    async def save(self, change: Change, version: int) -> None:
        """Store a change of the table that has ``version``; it is durable on return.

        After an error other than NOT_SERVING the change may have been stored: ``load`` says.
        """
        first = True

        async def write(tr: Transaction) -> None:
            nonlocal first
            await self._check_term(tr)
            stored = _number(await tr.get(keys.ROUTING_VERSION_KEY))
            if not first and stored == version + 1:
                return  # an attempt before, of unknown result, did it: nobody else of this term
            first = False
            if stored != version:
                raise FsError(
                    Code.INTERNAL, f"routing version {stored} is stored, {version} was expected"
                )
            _write(tr, change, version + 1)

        await transact(self._engine, write, timeout=_TIMEOUT)
        # Nodes act on what is published: after a power cut the store must not tell an older story.
        await self._engine.flush()

    async def _load(self, tr: Transaction) -> Table:
        await self._check_term(tr)
        nodes = [_node(k, v) for k, v in await tr.get_range(*keys.node_range())]
        chains = [_chain(k, v) for k, v in await tr.get_range(*keys.chain_range())]
        return Table(
            self._cluster_id,
            _number(await tr.get(keys.ROUTING_VERSION_KEY)),
            {n.node.node_id: n for n in nodes},
            {c.chain.chain_id: c for c in chains},
        )

    async def _check_term(self, tr: Transaction) -> None:
        if await tr.get(keys.PRIMARY_KEY) != self._term:
            raise FsError(Code.NOT_SERVING, "another cluster manager has taken over")

    def _check_cluster(self, row: _ClusterRow) -> None:
        if row.cluster_id != self._cluster_id:
            raise FsError(
                Code.CONFIG,
                f"the store belongs to cluster {row.cluster_id!r}, not to {self._cluster_id!r}",
            )


def _write(tr: Transaction, change: Change, version: int) -> None:
    tr.set(keys.ROUTING_VERSION_KEY, version.to_bytes(8, "big"))
    for record in change.nodes:
        node = record.node
        tr.set(keys.node_key(node.node_id), encode(_node_row(record)))
        tr.set(keys.node_name_key(node.role, node.name), node.node_id.to_bytes(8, "big"))
    for chain in change.chains:
        tr.set(keys.chain_key(chain.chain.chain_id), encode(_chain_row(chain)))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _read(cls: type[T], value: bytes) -> T:
    try:
        return from_wire(cls, decode(value))
    except FsError as error:
        raise FsError(Code.INTERNAL, "a record of the cluster manager cannot be read") from error


def _node_row(record: NodeRecord) -> _NodeRow:
    node = record.node
    return _NodeRow(
        _FORMAT,
        node.role,
        node.name,
        node.generation,
        list(node.addresses),
        node.alive,
        [int(t) for t in record.targets],
        [int(g) for g in record.former],
    )


def _node(key: bytes, value: bytes) -> NodeRecord:
    row = _read(_NodeRow, value)
    node = Node(
        keys.node_of_key(key),
        Role(row.role),
        row.name,
        Generation(row.generation),
        tuple(row.addresses),
        row.alive,
    )
    targets = tuple(TargetId(t) for t in row.targets)
    return NodeRecord(node, targets, tuple(Generation(g) for g in row.former))


def _chain_row(record: ChainRecord) -> _ChainRow:
    chain = record.chain
    targets = [_TargetRow(t.target_id, t.node_id, t.state) for t in chain.targets]
    return _ChainRow(_FORMAT, chain.version, targets, record.last_change)


def _chain(key: bytes, value: bytes) -> ChainRecord:
    row = _read(_ChainRow, value)
    targets = tuple(
        ChainTarget(TargetId(t.target_id), NodeId(t.node_id), PublicState(t.state))
        for t in row.targets
    )
    chain = Chain(ChainId(keys.chain_of_key(key)), ChainVersion(row.version), targets)
    return ChainRecord(chain, row.last_change)
