"""A storage node: its targets, its lease, its talk with the manager; as in ``storage_service``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from chain_replication import events as ev
from chain_replication.manager.state import Beat, Report
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import Generation, NodeId
from fireflyfs.limits import HEARTBEAT_INTERVAL
from fireflyfs.routing import LocalState, Role, Routing
from tests.simulation.kernel import Future, Process
from tests.simulation.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chain_replication.standing import Standing
    from fireflyfs.ids import TargetId
    from tests.simulation.messages import (
        Finishing,
        Flushing,
        Forwarding,
        Listing,
        Reading,
        Updating,
    )
    from tests.simulation.network import Network
    from tests.simulation.store import SimStore
    from tests.simulation.watch import Watch

BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.25
POLL_SECONDS = 10.0
PARK_SECONDS = 0.2
UPDATE_SECONDS = 30.0
FLUSH_SECONDS = 20.0
SYNC_SECONDS = 5.0


class StorageNode:
    """One life of a node: a process."""

    def __init__(
        self,
        process: Process,
        network: Network,
        node_id: NodeId,
        stores: Mapping[TargetId, SimStore],
        managers: tuple[str, ...],
        watch: Watch,
        exited: Callable[[], None],
    ) -> None:
        self.process = process
        self.kernel = process.kernel
        self.network = network
        self._watch = watch
        self.exited = exited
        """Called when it ends by itself."""
        self.node_id = node_id
        self.generation = Generation(self.kernel.random.getrandbits(40) + 1)
        self.routing = Routing()
        self._lease_until = 0.0
        self._managers = managers
        self._bell: Future[None] = Future()
        self.targets: dict[TargetId, Target] = {}
        for number, store in stores.items():
            store.open(process)
            self.targets[number] = Target(self, number, store)
            self.targets[number].observe = watch.stepped
            if store.emptied:
                self.targets[number].standing.lose_content("its content was lost")
        self._by_chain: dict[int, Target] = {}
        network.listen(process.name, self)
        process.spawn(self._beat())
        process.spawn(self._follow_routing())

    def kill(self) -> None:
        self.process.kill()
        for target in self.targets.values():
            target.store.close()

    def call(self, node: NodeId, method: str, body: Any, *, timeout: float) -> Future[Any]:
        if node not in self.routing.nodes:
            raise FsError(Code.UNREACHABLE, f"node {node} is not in routing")
        return self.network.call(self.process, f"node-{node}", method, body, timeout=timeout)

    # The manager

    def ring(self) -> None:
        self._bell.set(None)

    async def _beat(self) -> None:
        while True:
            for target in self.targets.values():
                target.tick()
            heard = await self._beat_once()
            bell = self._bell
            self.process.after(
                HEARTBEAT_INTERVAL if heard else RETRY_SECONDS, partial(bell.set, None)
            )
            await bell
            self._bell = Future()

    async def _beat_once(self) -> bool:
        reports = {
            number: Report(
                target.standing.local, target.standing.chain_version, reason=target.standing.reason
            )
            for number, target in self.targets.items()
        }
        name = self.process.name
        beat = Beat(self.node_id, self.generation, Role.STORAGE, name, (name,), reports)
        sent = self.process.clock()
        try:
            lease = await self.ask_manager("heartbeat", beat, timeout=BEAT_SECONDS)
        except FsError as error:
            if error.code is Code.SUPERSEDED:
                self.kernel.probe("a node is superseded")
                self.exited()
            return False
        self._lease_until = max(self._lease_until, sent + lease)
        return True

    async def ask_manager(self, method: str, body: Any, *, timeout: float) -> Any:
        """The one that answered last; the other one after a failure."""
        manager = self._managers[0]
        try:
            return await self.network.call(self.process, manager, method, body, timeout=timeout)
        except FsError:
            if self._managers[0] == manager:
                self._managers = (*self._managers[1:], manager)
            raise

    async def _follow_routing(self) -> None:
        while True:
            try:
                known = self.routing.version
                routing = await self.ask_manager(
                    "routing", (known, POLL_SECONDS), timeout=POLL_SECONDS + BEAT_SECONDS
                )
                if routing is None:
                    continue
                if routing.version <= known:
                    raise FsError(Code.ROUTING_STALE, "old routing")
                self.routing = routing
                self._follow(routing)
            except FsError:
                await self.process.sleep(RETRY_SECONDS)

    def _follow(self, routing: Routing) -> None:
        mine = routing.nodes.get(self.node_id)
        if mine is None or mine.generation != self.generation:
            return
        chains = {t.target_id: chain for chain, t in routing.targets_of(self.node_id)}
        self._by_chain = {c.chain_id: self.targets[number] for number, c in chains.items()}
        for number, target in self.targets.items():
            target.step(ev.RoutingChanged(chains.get(number)))

    def check_lease(self) -> None:
        if self.process.clock() >= self._lease_until:
            self.kernel.probe("an answer is withheld for want of a lease")
            raise FsError(Code.LEASE_EXPIRED, "the manager has not heard this node for too long")

    # What it is asked

    async def handle(self, source: str, method: str, body: Any) -> Any:
        return await getattr(self, "_" + method)(body)

    def _of_chain(self, chain: int) -> Target:
        target = self._by_chain.get(chain)
        if target is None:
            raise FsError(Code.ROUTING_STALE, f"node {self.node_id} is not on chain {chain}")
        return target

    async def _update(self, message: Updating) -> tuple[int, int]:
        reply = await self._of_chain(message.chain).ask(
            lambda number: ev.ClientUpdate(number, message.chain_version, message.update),
            message.payload,
            timeout=UPDATE_SECONDS,
        )
        self.check_lease()
        self._watch.acknowledged(message.chain, message.update, reply.version)
        return reply.version, reply.length

    async def _forward(self, message: Forwarding) -> tuple[int, int]:
        reply = await self._of_chain(message.chain).ask(
            lambda number: ev.Forwarded(
                number,
                message.chain_version,
                message.source,
                message.version,
                message.update,
                message.tags,
            ),
            message.payload,
            timeout=UPDATE_SECONDS,
        )
        return reply.version, reply.checksum

    async def _read(self, message: Reading) -> tuple[int, tuple[int, ...]]:
        target = self._of_chain(message.chain)
        target.standing.check_serving()
        if not target.replica.readable(message.chunk):
            await target.wait_readable(message.chunk, PARK_SECONDS)
        found = target.store.read(message.chunk)
        if self.kernel.chance(0.5):
            await self.process.sleep(self.kernel.random.expovariate(1 / target.store.delay))
        target.standing.check_serving()
        self.check_lease()
        self._watch.read(target)
        return found

    async def _flush(self, message: Flushing) -> None:
        target = self._of_chain(message.chain)
        standing = target.standing
        _check_takes_updates(standing, message.chain_version)
        mine = target.store.flush()
        successor = standing.successor
        if successor is not None:
            await self.call(successor.node_id, "flush", message, timeout=FLUSH_SECONDS)
        await mine
        _check_takes_updates(standing, message.chain_version)
        self.check_lease()

    async def _list(self, message: Listing) -> tuple[Any, bool]:
        target = self._of_chain(message.chain)
        if not message.after:
            await target.ask(
                lambda number: ev.SyncBegan(number, message.chain_version), timeout=SYNC_SECONDS
            )
        target.standing.check_version(message.chain_version)
        target.standing.check_syncing()
        found = target.store.listing(message.after, message.limit)
        return found, len(found) < message.limit

    async def _sync_done(self, message: Finishing) -> None:
        target = self._of_chain(message.chain)
        target.standing.check_version(message.chain_version)
        target.standing.check_syncing()
        if target.standing.local is not LocalState.UPTODATE:
            await target.store.flush()
        await target.ask(
            lambda number: ev.SyncDone(number, message.chain_version), timeout=SYNC_SECONDS
        )


def _check_takes_updates(standing: Standing, chain_version: int) -> None:
    standing.check_version(chain_version)
    if not standing.is_syncing:
        standing.check_serving()
