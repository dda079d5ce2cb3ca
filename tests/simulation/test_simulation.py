"""Some hundred seeds; and that a seed is one history, wherever it is run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, UNFOUND, find
from tests.simulation.run import simulate
from tests.simulation.watch import PROBES

ROOT = Path(__file__).parents[2]
SEEDS = 300
_TELL = (
    "import hashlib; from tests.simulation.run import simulate;"
    "print([hashlib.sha256('\\n'.join(simulate(s, tracing=True).transcript).encode())"
    ".hexdigest() for s in (3, 12, 43)])"
)


def test_a_seed_is_the_same_history_in_any_process() -> None:
    transcripts = [
        subprocess.run(
            [sys.executable, "-c", _TELL],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert transcripts[0] == transcripts[1]
    here = "\n".join(simulate(12, tracing=True).transcript)
    assert hashlib.sha256(here.encode()).hexdigest() in transcripts[0]


@pytest.mark.slow
def test_no_seed_finds_a_violation_and_every_rare_state_is_met() -> None:
    probes: Counter[str] = Counter()
    violations = []
    virtual = 0.0
    for seed in range(SEEDS):
        result = simulate(seed)
        probes.update(result.probes)
        virtual += result.virtual_seconds
        violations += [f"seed {seed}: {what}" for what in result.violations]
    assert not violations
    assert [name for name in PROBES if not probes[name]] == []
    assert virtual > SEEDS * 10


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in UNFOUND])
def test_a_planted_bug_is_found(name: str) -> None:
    assert find(name) is not None
