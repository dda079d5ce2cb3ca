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
        return self._random.choice([0.05, 0.5, 3.0, 6.0])

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
        """Shortly after the next action of some kind, of the node that takes it or of another."""
        other = self._node() if self._random.random() < 0.3 else None

        def fire(node: NodeId) -> None:
            victim = other or node
            self._kernel.at(self._random.random() * 0.002, lambda: self._kill_unless_over(victim))

        self._aim = self._random.choice(_AIMS), fire

    def _kill_unless_over(self, node: NodeId) -> None:
        if not self._over:
            self._kill_node(node)

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
        store = self._random.choice(list(life.targets.values())).store
        store.failure = "EIO"
        self._later(6.0, lambda: self._kill_node(node))
