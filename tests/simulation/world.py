"""One simulated cluster, drawn from a seed: how large, how it is used, what goes wrong."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from chain_replication.manager import growth
from chain_replication.manager.records import Table
from fireflyfs.ids import ChainId
from fireflyfs.routing import PublicState, Role
from tests.simulation.client import Client
from tests.simulation.history import History, Kind, Operation
from tests.simulation.kernel import Kernel, Process
from tests.simulation.manager import ManagerProcess, SharedTable
from tests.simulation.network import Network, Weather
from tests.simulation.node import StorageNode
from tests.simulation.store import SimStore
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from fireflyfs.ids import NodeId, TargetId
    from fireflyfs.routing import Chain

MANAGERS = ("manager-0", "manager-1")
RESTART_SECONDS = 0.5
"""By the supervisor."""


@dataclass(slots=True)
class Plan:
    """What one seed draws: each its own mix."""

    replicas: int
    nodes: int
    slots: int
    clients: int
    readers: int
    """Of the clients, those that only read: a write that cannot go on holds its client up."""
    chunks: int
    mix: list[tuple[Kind, float]]
    pause: float
    deadline: float
    seconds: float
    weather: Weather
    drift: float
    """Share by which clocks go wrong at most."""
    copying: float
    """Mean seconds between two chunks that recovery moves: it is throttled."""
    faults: list[str] = field(default_factory=list)
    every: float = 1.0
    """Mean seconds between two faults."""


class World:
    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.kernel = kernel
        self.plan = plan
        self.network = Network(kernel, plan.weather)
        self.history = History()
        self.stores: dict[TargetId, SimStore] = {}
        self._slots: dict[NodeId, list[TargetId]] = {}
        self.shared = SharedTable(kernel, self._first_table())
        self.watch = Watch(kernel, self.history, self.stores, self.shared.table)
        self.shared.on_change = self.watch.table_changed
        self.managers: list[ManagerProcess] = []
        self.nodes: dict[NodeId, StorageNode] = {}
        self.clients: list[Client] = []
        self._values = itertools.count(1)
        self.start_manager(0)
        for node in self._slots:
            self.start_node(node)
        for number in range(1, plan.clients + 1):
            self.start_client(number)

    def _first_table(self) -> Table:
        table = Table("simulated")
        for number in range(1, self.plan.nodes + 1):
            record, change = growth.register(table, Role.STORAGE, f"node-{number}", self.plan.slots)
            table = table.applied(change)
            self._slots[record.node.node_id] = list(record.targets)
            for target in record.targets:
                self.stores[target] = SimStore(self.kernel, f"store {target}")
                self.stores[target].copying = self.plan.copying
        return table.applied(growth.create_chains(table, self.plan.replicas))

    # Processes

    def _process(self, name: str) -> Process:
        random = self.kernel.random
        rate = 1.0 + random.uniform(-self.plan.drift, self.plan.drift)
        return Process(self.kernel, name, offset=random.uniform(0, 1000), rate=rate)

    def start_manager(self, index: int) -> None:
        """Take over, whether the former one is dead or not."""
        process = self._process(MANAGERS[index])
        self.managers.append(ManagerProcess(process, self.network, self.shared))

    def start_node(self, node: NodeId) -> None:
        life = StorageNode(
            self._process(f"node-{node}"),
            self.network,
            node,
            {target: self.stores[target] for target in self._slots[node]},
            MANAGERS,
            self.watch,
            partial(self._supervise, node),
        )
        self.nodes[node] = life
        for number, target in life.targets.items():
            self.stores[number].on_change = partial(self.watch.stored, target)

    def start_client(self, number: int) -> Client:
        process = self._process(f"client-{number}")
        client = Client(
            process, self.network, MANAGERS, number, self.history, self._values, self.watch
        )
        client.deadline = self.plan.deadline
        self.clients.append(client)
        return client

    def kill_node(self, node: NodeId) -> None:
        life = self.nodes[node]
        if life.process.alive:
            self.kernel.trace(life.process.name, "is killed")
            life.kill()

    def _supervise(self, node: NodeId) -> None:
        """A node has ended by itself: it is started again."""
        life = self.nodes[node]
        self.kernel.trace(life.process.name, "ends by itself")
        life.kill()

        def start() -> None:
            if self.nodes[node] is life:
                self.start_node(node)

        self.kernel.at(RESTART_SECONDS, start)

    # Rest

    @property
    def chunks(self) -> list[tuple[int, bytes]]:
        chains = list(self.shared.table.chains)
        return [(chains[i % len(chains)], b"chunk-%d" % i) for i in range(self.plan.chunks)]

    def unsettled(self) -> str | None:
        """What keeps the cluster from being at rest and complete."""
        for client in self.clients:
            if not client.idle:
                return f"{client.process.name} still waits"
        for number, record in self.shared.table.chains.items():
            chain = record.chain
            if self._is_lost(chain):
                continue
            if len(chain.serving) < len(chain.targets):
                states = ", ".join(f"{t.target_id} {t.state.name}" for t in chain.targets)
                return f"chain {number} version {chain.version}: {states}"
            for member in chain.targets:
                target = self.nodes[member.node_id].targets[member.target_id]
                standing = target.standing
                if not standing.is_serving or standing.chain_version != chain.version:
                    return f"target {member.target_id} does not serve yet: {standing}"
                if target.replica.in_flight:
                    return f"target {member.target_id} has updates in flight"
        return None

    def _is_lost(self, chain: Chain) -> bool:
        """Nothing but a person can help: the disk of each holder was replaced by an empty one,
        after the manager had chosen it over others that were silent or had restarted."""
        holders = [t for t in chain.targets if t.state is PublicState.LASTSRV]
        lost = bool(holders) and all(self.stores[t.target_id].emptied for t in holders)
        if lost:
            self.kernel.probe("the last holder's disk was lost")
        return lost

    def check_replicas(self) -> None:
        """At rest: all copies are the same."""
        for number, record in self.shared.table.chains.items():
            if self._is_lost(record.chain):
                continue
            targets = [member.target_id for member in record.chain.targets]
            copies = [self._copy(target) for target in targets]
            for target, copy in zip(targets, copies, strict=True):
                if copy != copies[0]:
                    self.kernel.violation(
                        f"chain {number}: target {target} holds {copy}, the head {copies[0]}"
                    )

    def _copy(self, target: TargetId) -> dict[bytes, object]:
        copy: dict[bytes, object] = {}
        for chunk, record in sorted(self.stores[target].records.items()):
            now = record.committed
            # Of removed chunks only those remember who had written them that were there.
            tags = () if now is None or chunk in self.watch.removed else now.tags
            copy[chunk] = (now and (now.number, now.content), tags, record.pending)
        return copy

    def final_operations(self) -> None:
        """Every chunk can be read, written and read."""
        client = self.start_client(len(self.clients) + 1)
        client.deadline = 30.0

        async def go() -> None:
            for chain, chunk in self.chunks:
                if self._is_lost(self.shared.table.chains[ChainId(chain)].chain):
                    continue
                for kind in (Kind.READ, Kind.WRITE, Kind.READ):
                    operation: Operation = await client.perform(kind, chain, chunk)
                    if operation.end > self.kernel.now:
                        self.kernel.violation(f"{kind.value} of {chunk!r} fails in peace")
            client.idle = True

        client.process.spawn(go())
