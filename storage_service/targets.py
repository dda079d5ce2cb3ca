"""The targets of this node: each a store, a replica at work, and what goes on behind it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from chain_replication import events as ev
from fireflyfs.errors import Code, FsError
from fireflyfs.routing import LocalState
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.convert import local_state_to_proto
from storage_service.driver import Driver
from storage_service.repair import Repairs
from storage_service.resync import Resync
from storage_service.store.store import ChunkStore
from storage_service.store.types import StoreIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from chain_replication import actions as act
    from fireflyfs.ids import ChainId, Generation, NodeId, TargetId
    from fireflyfs.routing import Routing
    from storage_service.neighbours import Neighbours

logger = logging.getLogger(__name__)

LOST_CONTENT = ".lost"
"""Suffix of a file beside a target's directory."""


class Target:
    """One healthy target. ``local_changed`` is called when the manager should be told."""

    def __init__(
        self,
        target: TargetId,
        store: ChunkStore,
        neighbours: Neighbours,
        nursery: trio.Nursery,
        local_changed: Callable[[], None],
        lost_content: Path,
    ) -> None:
        """``lost_content``: a mark that the store was found empty, kept until it is synced; it lies
        on the disk of the store."""
        self.target_id = target
        self._tell = local_changed
        self._lost_content = lost_content
        self.store = store
        self._disk = disk_name(lost_content.parent)
        self._nursery = nursery
        self.driver = Driver(
            target,
            store,
            neighbours,
            nursery,
            local_changed=self._changed,
            resync=self._follow_successor,
        )
        self.repairs = Repairs(self.driver, neighbours, nursery)
        self._resync = Resync(self.driver, neighbours, self.repairs)
        self._resync_scope: trio.CancelScope | None = None
        if lost_content.exists():
            logger.error("target %d is empty: it has lost its content", target)
            self.driver.standing.lose_content("its content was lost; it comes back by recovery")

    def _changed(self) -> None:
        if self.driver.standing.local is LocalState.UPTODATE:
            self._lost_content.unlink(missing_ok=True)
        self._tell()

    def _follow_successor(self, start: act.StartResync | None) -> None:
        if self._resync_scope is not None:
            self._resync_scope.cancel()
            self._resync_scope = None
        if start is not None:
            self._resync_scope = trio.CancelScope()
            self._nursery.start_soon(self._resync.run, start, self._resync_scope)

    def report(self) -> pb.TargetReport:
        standing = self.driver.standing
        report = pb.TargetReport(
            target_id=self.target_id,
            state=local_state_to_proto(standing.local),
            chain_version=standing.chain_version,
            reason=standing.reason,
            sync_remaining=self._resync.remaining,
            disk=self._disk,
        )
        try:
            usage = self.store.usage()
        except FsError as error:
            self.driver.step(ev.TargetFailed(str(error)))
            return report
        report.used_bytes, report.capacity_bytes = usage.used, usage.capacity
        report.chunks = usage.chunks
        return report


def disk_name(directory: Path) -> str:
    """The same for all directories of one file system of one running kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{directory.stat().st_dev}"


class Targets:
    """All targets of the node, the ones whose stores cannot be opened included."""

    def __init__(self, node_id: NodeId, generation: Generation) -> None:
        self.node_id = node_id
        self.generation = generation
        self._targets: dict[TargetId, Target] = {}
        self._failed: dict[TargetId, str] = {}
        self._by_chain: dict[ChainId, TargetId] = {}

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets.values())

    async def open(
        self,
        directory: Path,
        cluster_id: str,
        targets: Sequence[TargetId],
        nursery: trio.Nursery,
        neighbours: Neighbours,
        local_changed: Callable[[], None],
        *,
        before: Container[TargetId] = (),
    ) -> None:
        """Open each target's store in its directory. One that is damaged is reported offline; one
        of those that were here ``before`` but is empty now may not revive its chain.

        Raises FsError(CONFIG) for a directory that is another's or cannot be used.
        """
        for number in targets:
            place = directory / f"target-{number}"
            try:
                await trio.Path(place).mkdir(exist_ok=True)
                if number in before and not any(place.iterdir()):
                    place.with_suffix(LOST_CONTENT).touch()
                identity = StoreIdentity(cluster_id, number)
                store = await ChunkStore.open(place, identity, nursery=nursery)
            except OSError as error:
                raise FsError(Code.CONFIG, f"{place}: {error.strerror}") from None
            except FsError as error:
                if error.code is Code.CONFIG:
                    raise
                logger.error("target %d stays offline: %s", number, error)
                self._failed[number] = str(error)
            else:
                self._targets[number] = Target(
                    number,
                    store,
                    neighbours,
                    nursery,
                    local_changed,
                    place.with_suffix(LOST_CONTENT),
                )

    def of_chain(self, chain: int) -> Target:
        """Raises FsError: ROUTING_STALE (none of ours, as far as known), TARGET_FAILED."""
        number = self._by_chain.get(chain)  # type: ignore[call-overload]
        if number is None:
            raise FsError(Code.ROUTING_STALE, f"node {self.node_id} is not on chain {chain}")
        target = self._targets.get(number)
        if target is None:
            raise FsError(Code.TARGET_FAILED, self._failed.get(number, f"no target {number} here"))
        return target

    def follow(self, routing: Routing) -> None:
        """Tell every target its chain. Routing from before this start of the node is not for us."""
        mine = routing.nodes.get(self.node_id)
        if mine is None or mine.generation != self.generation:
            return
        chains = {t.target_id: chain for chain, t in routing.targets_of(self.node_id)}
        self._by_chain = {chain.chain_id: number for number, chain in chains.items()}
        for target in self:
            target.driver.step(ev.RoutingChanged(chains.get(target.target_id)))

    def report(self) -> list[pb.TargetReport]:
        failed = [
            pb.TargetReport(
                target_id=number, state=local_state_to_proto(LocalState.OFFLINE), reason=reason
            )
            for number, reason in self._failed.items()
        ]
        return [target.report() for target in self] + failed

    def tick(self) -> None:
        for target in self:
            target.driver.tick()

    def stop(self) -> None:
        """Whoever waits is told NOT_SERVING."""
        for target in self:
            target.driver.step(ev.Stopped())

    async def close(self) -> None:
        """Flush and close the stores; nothing may be using them any more."""
        for target in self:
            await target.store.close()
