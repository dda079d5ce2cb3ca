"""What goes wrong: each seed draws a mix of these, and when; all of it is undone in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain_replication import actions as act
from tests.simulation.network import Weather
from tests.simulation.world import MANAGERS, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain_replication import events as ev
    from fireflyfs.ids import NodeId
    from fireflyfs.routing import ChainTarget
    from tests.simulation.targets import Target

_AIMS: tuple[type, ...] = (
    act.Persist,
    act.Forward,
    act.Commit,
    act.Reply,
    act.Refuse,
    act.StartResync,
    act.LocalChanged,
    act.CommitPendings,
    act.CancelForward,
    act.Abort,
)


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self._kernel = world.kernel
        self._random = world.kernel.random
        self._over = False
        self._aim: tuple[type, Callable[[NodeId], None]] | None = None
        self._slow = [0.02, 0.2, 1.0]
        self.kinds: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "kill all": self._kill_all,
            "aimed kill": self._aimed_kill,
            "power": self._power,
            "power all": self._power_all,
            "aimed kill all": self._aimed_kill_all,
            "aimed power": self._aimed_power,
            "empty disk": self._empty_disk,
            "split": self._split,
            "pause": self._pause,
            "isolate": self._isolate,
            "cut": self._cut,
            "manager kill": self._manager_kill,
            "manager takeover": self._manager_takeover,
            "manager pause": self._manager_pause,
            "slow disk": self._slow_disk,
            "full disk": self._full_disk,
            "bad disk": self._bad_disk,
            "kv trouble": self._kv_trouble,
        }
        self._watched = world.watch.stepped
        world.watch.stepped = self._stepped  # type: ignore[method-assign]
        for life in world.nodes.values():
            for target in life.targets.values():
                target.observe = self._stepped

    def begin(self) -> None:
        if self._world.plan.faults:
            self._kernel.at(self._random.expovariate(1 / self._world.plan.every), self._next)

    def _next(self) -> None:
        if self._over:
            return
        kind = self._random.choice(self._world.plan.faults)
        self._kernel.faults[kind] += 1
        self.kinds[kind]()
        self._kernel.at(self._random.expovariate(1 / self._world.plan.every), self._next)

    def end(self) -> None:
        """Everything is healed."""
        self._over = True
        self._aim = None
        world = self._world
        world.network.cuts.clear()
        world.network.weather = Weather(delay=world.plan.weather.delay)
        world.shared.trouble, world.shared.delay = 0.0, 0.001
        for store in world.stores.values():
            store.delay, store.is_full = 0.0005, False
        for process in [m.process for m in world.managers] + [
            n.process for n in world.nodes.values()
        ]:
            process.resume()
        for node, life in world.nodes.items():
            broken = any(t.store.failure is not None for t in life.targets.values())
            if broken:
                world.kill_node(node)
            if broken or not life.process.alive:
                world.start_node(node)
        self._keep_manager()

    def _keep_manager(self) -> None:
        """As a supervisor does: takeovers from before the end may still bring all of them down."""
        self._start_manager()
        self._kernel.at(1.0, self._keep_manager)

    # Helpers

    def _node(self) -> NodeId:
        return self._random.choice(list(self._world.nodes))

    def _later(self, mean: float, undo: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self._over:
                undo()

        self._kernel.at(self._random.expovariate(1 / mean), unless_over)

    def _outage(self) -> float:
        """Mean seconds: short as a restart, or longer than the failure detector's patience."""
        return self._random.choice([0.05, 0.5, 3.0, 8.0])

    # Nodes

    def _kill(self) -> None:
        self._kill_node(self._node())

    def _kill_node(self, node: NodeId) -> None:
        self._world.kill_node(node)
        self._later(self._outage(), lambda: self._restart(node))

    def _restart(self, node: NodeId) -> None:
        if not self._world.nodes[node].process.alive:
            self._kernel.trace(f"node-{node}", "starts")
            self._world.start_node(node)

    def _kill_all(self) -> None:
        for node in self._world.nodes:
            self._kill_node(node)

    def _aimed_kill(self) -> None:
        """Of the node that takes the action, or of another."""
        other = self._node() if self._random.random() < 0.3 else None
        self._aim_at(lambda node: self._kill_node(other or node))

    def _aimed_kill_all(self) -> None:
        self._aim_at(lambda _: self._kill_all())

    def _aimed_power(self) -> None:
        self._aim_at(self._cut_power)

    def _aim_at(self, strike: Callable[[NodeId], None]) -> None:
        """At the next action of some kind, before anything comes of it, or shortly after."""

        def fire(node: NodeId) -> None:
            delay = self._random.choice([0.0, self._random.random() * 0.002])
            self._kernel.at(delay, lambda: None if self._over else strike(node))

        self._aim = self._random.choice(_AIMS), fire

    def _stepped(self, target: Target, event: ev.Event, actions: list[act.Action]) -> None:
        self._watched(target, event, actions)
        if self._aim is not None and any(isinstance(a, self._aim[0]) for a in actions):
            _, fire = self._aim
            self._aim = None
            fire(target.node.node_id)

    def _power(self) -> None:
        self._cut_power(self._node())

    def _power_all(self) -> None:
        for node in self._world.nodes:
            self._cut_power(node)

    def _cut_power(self, node: NodeId) -> None:
        life = self._world.nodes[node]
        if not life.process.alive:
            return
        self._kill_node(node)
        self._kernel.trace(life.process.name, "lost power")
        for target in life.targets.values():
            target.store.cut_power()

    def _empty_disk(self) -> None:
        """Of a node that is not needed: each of its chains is served by a good copy elsewhere."""
        node = self._node()
        life = self._world.nodes[node]
        if not life.process.alive or self._is_needed(node):
            return
        self._kill_node(node)
        self._kernel.probe("emptied disk replaced")
        self._kernel.trace(life.process.name, "lost its disks")
        for target in life.targets.values():
            target.store.empty()

    def _is_needed(self, node: NodeId) -> bool:
        """One of its chains is served by no good copy elsewhere."""
        return any(
            not any(t.node_id != node and self._is_good(t) for t in record.chain.serving)
            for record in self._world.shared.table.chains.values()
            if any(t.node_id == node for t in record.chain.targets)
        )

    def _is_good(self, target: ChainTarget) -> bool:
        """And is known to go on: one that restarts may yet be told to wait for others."""
        store, life = self._world.stores[target.target_id], self._world.nodes[target.node_id]
        known = self._world.shared.table.nodes[target.node_id].node.generation == life.generation
        damaged = store.tainted or store.emptied or store.failure is not None
        serves = life.targets[target.target_id].standing.is_serving
        return life.process.alive and known and serves and not damaged

    def _pause(self) -> None:
        process = self._world.nodes[self._node()].process
        process.pause()
        self._kernel.trace(process.name, "is paused")
        self._later(self._outage(), process.resume)

    # Network

    def _isolate(self) -> None:
        name = self._random.choice(self._world.network.names())
        others = [n for n in self._everybody() if n != name]
        both = self._random.random() < 0.5
        ways = [(name, o) for o in others] + ([(o, name) for o in others] if both else [])
        self._sever(ways)

    def _cut(self) -> None:
        one, other = self._random.sample(self._everybody(), 2)
        both = self._random.random() < 0.5
        self._sever([(one, other), (other, one)] if both else [(one, other)])

    def _split(self) -> None:
        """Two camps that do not hear each other."""
        camp = [name for name in self._everybody() if self._random.random() < 0.5]
        others = [name for name in self._everybody() if name not in camp]
        self._sever([way for a in camp for b in others for way in ((a, b), (b, a))])

    def _everybody(self) -> list[str]:
        clients = [client.process.name for client in self._world.clients]
        return self._world.network.names() + clients

    def _sever(self, ways: list[tuple[str, str]]) -> None:
        self._kernel.trace("network", "cuts", *(f"{a}->{b}" for a, b in ways))
        self._world.network.cuts.update(ways)
        self._later(self._outage(), lambda: self._world.network.cuts.difference_update(ways))

    # Managers

    def _manager_kill(self) -> None:
        manager = self._random.choice(self._world.managers)
        manager.process.kill()
        self._later(self._outage(), self._start_manager)

    def _start_manager(self) -> None:
        if not any(self._world.network.answers(name) for name in MANAGERS):
            self._world.start_manager(self._random.randrange(len(MANAGERS)))

    def _manager_takeover(self) -> None:
        self._world.start_manager(self._random.randrange(len(MANAGERS)))

    def _manager_pause(self) -> None:
        process = self._random.choice(self._world.managers).process
        process.pause()
        self._later(self._outage(), process.resume)
        if self._random.random() < 0.5:
            self._manager_takeover()

    def _kv_trouble(self) -> None:
        shared = self._world.shared
        shared.trouble, shared.delay = 0.3, self._random.choice([0.001, 0.05, 0.4])

        def calm() -> None:
            shared.trouble, shared.delay = 0.0, 0.001

        self._later(3.0, calm)

    # Disks

    def _slow_disk(self) -> None:
        store = self._random.choice(list(self._world.stores.values()))
        store.delay = self._random.choice(self._slow)

        def calm() -> None:
            store.delay = 0.0005

        self._later(3.0, calm)

    def _full_disk(self) -> None:
        store = self._random.choice(list(self._world.stores.values()))
        store.is_full = True

        def calm() -> None:
            store.is_full = False

        self._later(3.0, calm)

    def _bad_disk(self) -> None:
        """Until the node is restarted."""
        node = self._node()
        life = self._world.nodes[node]
        if self._is_needed(node):
            return
        store = self._random.choice(list(life.targets.values())).store
        store.failure = "EIO"
        self._later(6.0, lambda: self._kill_node(node))
