"""One seed: a plan is drawn, faults for a while, then peace; everything is checked."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.simulation.faults import Faults
from tests.simulation.history import Kind
from tests.simulation.kernel import Kernel
from tests.simulation.network import Weather
from tests.simulation.world import Plan, World

CONVERGES = 90.0
"""Virtual seconds after the last fault: by then every operation has ended, every chain is full."""
_KINDS = (
    "kill", "kill all", "aimed kill", "power", "power all", "pause", "isolate", "cut",
    "manager kill", "manager takeover", "manager pause", "slow disk", "full disk", "bad disk",
    "kv trouble", "aimed kill all", "aimed power", "empty disk", "split", "split",
)  # fmt: skip


@dataclass(slots=True)
class Result:
    seed: int
    operations: int = 0
    unknown: int = 0
    virtual_seconds: float = 0.0
    events: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    probes: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)


def draw(seed: int) -> Plan:
    """From a generator of its own, so that a plan can be looked at without running it."""
    rng = random.Random(f"plan {seed}")
    replicas = rng.choice([1, 2, 2, 3, 3, 3, 3, 4, 5])
    nodes = replicas + rng.choice([0, 0, 0, 1])
    harsh = rng.random() < 0.7
    weather = Weather(
        delay=rng.choice([0.0002, 0.001, 0.005]),
        straggle=rng.choice([0.0, 0.01, 0.1]),
        straggler=rng.choice([0.05, 1.0, 6.0]),
        drop=rng.choice([0.0, 0.0, 0.01, 0.05]) if harsh else 0.0,
        late=rng.choice([0.0, 0.02, 0.1]) if harsh else 0.0,
        reset=rng.choice([0.0, 0.0, 0.02, 0.1]) if harsh else 0.0,
    )
    faults = rng.sample(_KINDS, rng.choice([0, 1, 2, 3, 5]))
    if "empty disk" in faults:
        # What a dead node said must not come so late that it takes the last good copy's place.
        weather.late, weather.straggler = 0.0, 0.05
    clients = rng.choice([1, 2, 3, 4])
    mix = [(Kind.WRITE, 1.0), (Kind.READ, rng.choice([0.3, 1.0, 2.0]))]
    if rng.random() < 0.3:
        mix.append((Kind.TRUNCATE, 0.3))
    if rng.random() < 0.5:
        mix.append((Kind.FLUSH, 0.1))
    if rng.random() < 0.2:
        mix.append((Kind.REMOVE, 0.2))
    return Plan(
        replicas=replicas,
        nodes=nodes,
        slots=rng.choice([1, 1, 2]) if nodes == replicas else replicas,
        clients=clients,
        readers=rng.choice([0, 0, clients // 2]),
        chunks=rng.choice([1, 2, 5]),
        mix=mix,
        pause=rng.choice([0.01, 0.1, 0.3]),
        deadline=rng.choice([2.0, 8.0, 30.0]),
        seconds=rng.choice([8.0, 12.0]),
        weather=weather,
        drift=rng.choice([0.0, 0.0, 0.005]),
        copying=rng.choice([0.0, 0.0, 0.05, 0.6]),
        faults=faults,
        every=rng.choice([0.3, 1.0, 3.0]),
    )


def simulate(seed: int, *, tracing: bool = False) -> Result:
    kernel = Kernel(seed, tracing=tracing)
    try:
        return _simulate(kernel, seed)
    finally:
        kernel.close()


def _simulate(kernel: Kernel, seed: int) -> Result:
    plan = draw(seed)
    kernel.trace("plan", str(plan))
    world = World(kernel, plan)
    faults = Faults(world)
    kernel.run(3.0)
    for number, client in enumerate(world.clients):
        mix = [(Kind.READ, 1.0)] if number < plan.readers else plan.mix
        client.work(world.chunks, mix, plan.pause)
    faults.begin()
    kernel.run(kernel.now + plan.seconds)
    kernel.trace("PEACE", "all faults end")
    faults.end()
    for client in world.clients:
        client.stop()
    _settle(world)
    if not kernel.violations:
        world.check_replicas()
        world.final_operations()
        _settle(world)
        world.check_replicas()
    violations = kernel.violations or world.history.violations()
    return Result(
        seed,
        operations=len(world.history.operations),
        unknown=sum(o.end > kernel.now for o in world.history.operations),
        virtual_seconds=kernel.now,
        faults=dict(kernel.faults),
        probes=dict(kernel.probes),
        violations=violations,
        transcript=kernel.transcript,
    )


def _settle(world: World) -> None:
    kernel = world.kernel
    until = kernel.now + CONVERGES
    while not kernel.violations and (what := world.unsettled()) is not None:
        if kernel.now >= until:
            kernel.violation(f"no rest {CONVERGES:g} s after the last fault: {what}")
        kernel.run(kernel.now + 0.1)
