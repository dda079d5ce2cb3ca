"""``python -m tests.simulation``: many seeds, or one with its transcript."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

from tests.simulation.run import simulate
from tests.simulation.watch import PROBES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--time", type=float, default=float("inf"), help="stop after seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: its transcript")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, tracing=options.trace)
    return _many(options)


def _one(seed: int, *, tracing: bool) -> int:
    result = simulate(seed, tracing=tracing)
    print("\n".join(result.transcript))
    for violation in result.violations:
        print(f"seed {seed}: {violation}")
    return bool(result.violations)


def _many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    faults: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    violations: list[dict[str, object]] = []
    histories = operations = 0
    virtual = 0.0
    for seed in range(options.first, options.first + options.seeds):
        if time.monotonic() - began > options.time:
            break
        result = simulate(seed)
        histories += 1
        operations += result.operations
        virtual += result.virtual_seconds
        faults.update(result.faults)
        probes.update(result.probes)
        violations += [{"seed": seed, "violation": what} for what in result.violations]
    report = {
        "histories": histories,
        "operations": operations,
        "faults": dict(sorted(faults.items())),
        "probes": dict(sorted(probes.items())),
        "violations": violations,
        "unreached": [name for name in PROBES if not probes[name]],
        "seconds": round(time.monotonic() - began, 1),
        "virtual_seconds": round(virtual, 1),
    }
    if options.json:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            lines = value if isinstance(value, list) else [value]
            print(f"{key}:", *lines, sep="\n    " if isinstance(value, list) else " ")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
