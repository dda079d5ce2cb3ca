"""The manager at work: state, store and clock joined; publishing; leases.

All decisions are made under one lock, in the order evaluate, store, publish, so the table in memory
is always one that is stored. A heartbeat is answered after the decision in progress, if there is
one: otherwise a node that is being taken out of its chains could be given a new lease between the
decision and its publication.

A lease ends before any other manager could count the node as dead. A newer one waits
``FAILURE_SECONDS`` from its take-over; this one knows, from reading the primary row, since when at
least nobody had taken over (``_verified``). So what it grants never reaches beyond
``_verified + FAILURE_SECONDS``: if it cannot read the row any more, or was paused, its leases
shrink to nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Never

import trio

from chain_replication.manager import growth
from chain_replication.manager.state import FAILURE_SECONDS, State
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import LEASE_SECONDS, MAX_ROUTING_WAIT

if TYPE_CHECKING:
    from chain_replication.manager.records import Change, NodeRecord, Table
    from chain_replication.manager.state import Beat
    from chain_replication.manager.store import Store
    from fireflyfs.ids import ChainId
    from fireflyfs.routing import Role, Routing

logger = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at the clock: how late a failure is noticed at most."""


class Manager:
    """One manager in office. ``open`` makes it; ``run`` must run beside the callers."""

    def __init__(self, store: Store, table: Table, now: float) -> None:
        self._store = store
        self._deciding = trio.Lock()
        self._must_reload = False
        self._verified = now
        self._published = trio.Event()
        self.state = State(table, now)
        self.routing: Routing = table.routing()

    @classmethod
    async def open(cls, store: Store) -> Manager:
        """Take over from whoever was the manager. Raises FsError as ``Store.take_over`` does."""
        table = await store.take_over()
        logger.info("in office", extra={"routing_version": table.version})
        return cls(store, table, trio.current_time())

    async def run(self) -> Never:
        """Watch the clock. Raises FsError(NOT_SERVING) when another manager has taken over."""
        said = ""
        while True:
            try:
                await self._verify()
                self.state.notice_silence(trio.current_time())
                await self._decide()
            except FsError as error:
                if error.code is Code.NOT_SERVING:
                    raise
                if said != str(error):
                    logger.error("cannot decide", extra={"reason": error})
                said = str(error)
            else:
                said = ""
            await trio.sleep(TICK)

    # What is asked of it

    async def heartbeat(self, beat: Beat) -> float:
        """Take a heartbeat; the lease in seconds from when it was sent.

        Raises FsError as ``State.heartbeat`` does, and what storing a decision raises.
        """
        self.state.heartbeat(beat, trio.current_time())
        await self._decide()
        return self._lease(beat)

    async def routing_after(self, known: int, wait: float) -> Routing | None:
        """The routing once it is newer than version ``known``; None after ``wait`` seconds."""
        with trio.move_on_after(min(wait, MAX_ROUTING_WAIT)):
            while self.routing.version <= known:
                await self._published.wait()
        return self.routing if self.routing.version > known else None

    async def register(self, role: Role, name: str, targets: int) -> NodeRecord:
        """Raises FsError as ``growth.register`` does, and what storing raises."""
        async with self._deciding:
            await self._reload()
            record, change = growth.register(self.state.table, role, name, targets)
            if change:
                await self._commit(change)
                logger.info(
                    "registered a node",
                    extra={"node": record.node.node_id, "node_name": name, "targets": targets},
                )
        return record

    async def create_chains(self, replicas: int) -> list[ChainId]:
        """Raises FsError as ``growth.create_chains`` does, and what storing raises."""
        async with self._deciding:
            await self._reload()
            change = growth.create_chains(self.state.table, replicas)
            if change:
                await self._commit(change)
        return [record.chain.chain_id for record in change.chains]

    # How it decides

    async def _decide(self) -> None:
        async with self._deciding:
            await self._reload()
            change = self.state.evaluate(trio.current_time())
            if change:
                await self._commit(change)

    async def _commit(self, change: Change) -> None:
        before = self.state.table
        self._must_reload = True  # until it is known what was stored, cancellation included
        await self._store.save(change, before.version)
        self._must_reload = False
        self._adopt(before.applied(change))
        _log_change(before, change)

    async def _reload(self) -> None:
        if self._must_reload:
            table = await self._store.load()
            self._must_reload = False
            self._adopt(table, everything=True)

    def _adopt(self, table: Table, *, everything: bool = False) -> None:
        self.state.adopt(table, trio.current_time(), everything=everything)
        self.routing = table.routing()
        self._published.set()
        self._published = trio.Event()

    async def _verify(self) -> None:
        now = trio.current_time()
        await self._store.verify()
        self._verified = now

    def _lease(self, beat: Beat) -> float:
        if not self.state.may_renew_lease(beat.node_id):
            return 0.0
        in_office = self._verified + FAILURE_SECONDS - trio.current_time()
        return max(0.0, min(LEASE_SECONDS, in_office))


def _log_change(before: Table, change: Change) -> None:
    for record in change.nodes:
        former = before.nodes.get(record.node.node_id)
        if former is not None:
            logger.info(
                "node changed",
                extra={
                    "node": record.node.node_id,
                    "node_name": record.node.name,
                    "alive": record.node.alive,
                    "restarted": record.node.generation != former.node.generation,
                },
            )
    for chain in change.chains:
        logger.info(
            "chain changed",
            extra={
                "chain": chain.chain.chain_id,
                "chain_version": chain.chain.version,
                "reason": chain.last_change,
            },
        )
