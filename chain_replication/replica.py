"""One replica of one chain: events in, actions out.

``step`` is the whole protocol. This module admits (who may ask for what, in which version of the
chain) and follows the chain; ``pipeline`` has the life of an update, ``standing`` the local state,
``versions`` what an update means to a chunk. None of them knows bytes, sockets or clocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain_replication import actions as act
from chain_replication import events as ev
from chain_replication.pipeline import Pipeline
from chain_replication.standing import Standing
from fireflyfs.errors import Code, FsError
from fireflyfs.routing import LocalState, PublicState
from fireflyfs.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain_replication.versions import Storage
    from fireflyfs.ids import TargetId


class Replica:
    def __init__(self, target: TargetId, storage: Storage) -> None:
        self.standing = Standing(target)
        self._pipeline = Pipeline(self.standing, storage)
        self._resync: tuple[int, int] | None = None
        self._activation = 0
        """Token of the last ``CommitPendings``."""
        self._must_activate = False

    def step(self, event: ev.Event, now: float) -> list[act.Action]:
        """Take one event at ``now`` (seconds, monotonic). Never raises for what a peer sends."""
        self._pipeline.now = now
        actions: list[act.Action] = []
        self._pipeline.actions = actions
        try:
            _HANDLERS[type(event)](self, event)
        except FsError as error:
            if isinstance(event, ev.ClientUpdate | ev.Forwarded | ev.Repair | ev.SyncChunk):
                self._pipeline.reject(event, error.code, error.message)
            elif isinstance(event, ev.SyncBegan | ev.SyncDone | ev.SyncBarrier | ev.Settle):
                self._pipeline.refuse(event.request, error.code, error.message)
            else:
                raise
        self._activate()
        self._follow_successor()
        return actions

    def readable(self, chunk: bytes) -> bool:
        """The committed version may be read now, if the target serves."""
        return self._pipeline.readable(chunk)

    @property
    def in_flight(self) -> int:
        """Operations."""
        return len(self._pipeline)

    # Who may ask for what

    def _client_update(self, event: ev.ClientUpdate) -> None:
        self.standing.check_version(event.chain_version)
        self.standing.check_head()
        self._pipeline.enqueue(event)

    def _forwarded(self, event: ev.Forwarded) -> None:
        standing, kind = self.standing, event.update.kind
        standing.check_version(event.chain_version)
        standing.check_predecessor(event.source)
        if standing.public is PublicState.SERVING:
            standing.check_serving()
            fits = kind is not UpdateKind.REPLACE
        else:
            standing.check_syncing()
            fits = kind in (UpdateKind.REPLACE, UpdateKind.REMOVE)
        if not fits:
            raise FsError(Code.INVALID, f"cannot take a {kind.name} while {standing.public.name}")
        self._pipeline.enqueue(event)

    def _sync_chunk(self, event: ev.SyncChunk) -> None:
        self.standing.check_version(event.chain_version)
        self.standing.check_serving()
        self._pipeline.enqueue(event)

    def _repair(self, event: ev.Repair) -> None:
        self.standing.check_serving()
        self._pipeline.enqueue(event)

    def _sync_barrier(self, event: ev.SyncBarrier) -> None:
        self.standing.check_version(event.chain_version)
        self.standing.check_serving()
        self._pipeline.barrier(event.request, answered_only=False)

    def _settle(self, event: ev.Settle) -> None:
        self.standing.check_serving()
        self._pipeline.barrier(event.request, answered_only=True)

    def _sync_began(self, event: ev.SyncBegan) -> None:
        self.standing.check_version(event.chain_version)
        self.standing.check_syncing()
        self.standing.session = event.chain_version
        self._pipeline.actions.append(act.Reply(event.request, 0, 0, 0))

    def _sync_done(self, event: ev.SyncDone) -> None:
        standing = self.standing
        standing.check_version(event.chain_version)
        standing.check_syncing()
        if standing.session != event.chain_version:
            message = f"target {standing.target} was not compared in this life of its node"
            raise FsError(Code.VERSION_GAP, message)
        self._pipeline.actions.append(act.Reply(event.request, 0, 0, 0))
        if standing.local is not LocalState.UPTODATE:
            standing.local, standing.synced = LocalState.UPTODATE, event.chain_version
            standing.content_lost = False
            self._pipeline.actions.append(act.LocalChanged())

    # The chain

    def _routing_changed(self, event: ev.RoutingChanged) -> None:
        standing = self.standing
        if event.chain is not None and event.chain.version <= standing.chain_version:
            return
        went_on = standing.is_serving
        if standing.follow(event.chain):
            self._pipeline.actions.append(act.LocalChanged())
        if went_on and standing.is_serving:
            self._pipeline.reroute()
        else:
            self._pipeline.drop(Code.ROUTING_STALE, "the chain has changed")
        if standing.public is not PublicState.SERVING:
            self._pipeline.forget()
        is_restarted = standing.public is PublicState.SERVING
        self._must_activate = is_restarted and standing.local is LocalState.ONLINE

    def _activate(self) -> None:
        """Begin to serve with what is stored, once nothing from before is still on its way to the
        store: what is pending there may be acknowledged elsewhere, so it is committed."""
        if self._must_activate and not self._pipeline:
            self._must_activate = False
            self._activation += 1
            self._pipeline.actions.append(
                act.CommitPendings(self._activation, self.standing.chain_version)
            )

    def _pendings_committed(self, event: ev.PendingsCommitted) -> None:
        standing = self.standing
        if event.token != self._activation or standing.public is not PublicState.SERVING:
            return
        if standing.local is LocalState.ONLINE and not self._must_activate:
            standing.local = LocalState.UPTODATE
            self._pipeline.actions.append(act.LocalChanged())

    def _target_failed(self, event: ev.TargetFailed) -> None:
        if not self.standing.has_failed:
            self.standing.has_failed = True
            self._pipeline.step_down(event.reason)

    def _tick(self, _: ev.Tick) -> None:
        if self.standing.recover(self._pipeline.now):
            self._pipeline.actions.append(act.LocalChanged())

    def _stopped(self, _: ev.Stopped) -> None:
        self._must_activate = False
        self._pipeline.drop(Code.NOT_SERVING, "the node is stopping")

    def _follow_successor(self) -> None:
        """The last serving replica brings the syncing one up to date."""
        standing = self.standing
        successor = standing.successor if standing.is_serving else None
        wanted = None
        if successor is not None and successor.state is PublicState.SYNCING:
            wanted = (successor.target_id, standing.chain_version)
        if wanted == self._resync:
            return
        self._resync = wanted
        if successor is not None and wanted is not None:
            self._pipeline.actions.append(act.StartResync(successor, standing.chain_version))
        else:
            self._pipeline.actions.append(act.StopResync())

    # Straight through

    def _read_arrived(self, event: ev.ReadArrived) -> None:
        self._pipeline.park(event)

    def _read_expired(self, event: ev.ReadExpired) -> None:
        self._pipeline.unpark(event)

    def _persisted(self, event: ev.Persisted) -> None:
        self._pipeline.persisted(event)

    def _persist_failed(self, event: ev.PersistFailed) -> None:
        self._pipeline.persist_failed(event)

    def _committed(self, event: ev.Committed) -> None:
        self._pipeline.settled(event)

    def _acknowledged(self, event: ev.Acknowledged) -> None:
        self._pipeline.acknowledged(event)

    def _forward_failed(self, event: ev.ForwardFailed) -> None:
        self._pipeline.forward_failed(event)


_HANDLERS: dict[type[Any], Callable[[Replica, Any], None]] = {
    ev.RoutingChanged: Replica._routing_changed,
    ev.Tick: Replica._tick,
    ev.ClientUpdate: Replica._client_update,
    ev.ReadArrived: Replica._read_arrived,
    ev.ReadExpired: Replica._read_expired,
    ev.Settle: Replica._settle,
    ev.Forwarded: Replica._forwarded,
    ev.SyncBegan: Replica._sync_began,
    ev.SyncDone: Replica._sync_done,
    ev.SyncBarrier: Replica._sync_barrier,
    ev.SyncChunk: Replica._sync_chunk,
    ev.Repair: Replica._repair,
    ev.Persisted: Replica._persisted,
    ev.PersistFailed: Replica._persist_failed,
    ev.Committed: Replica._committed,
    ev.Acknowledged: Replica._acknowledged,
    ev.ForwardFailed: Replica._forward_failed,
    ev.PendingsCommitted: Replica._pendings_committed,
    ev.TargetFailed: Replica._target_failed,
    ev.Stopped: Replica._stopped,
}
