"""What a benchmark prints: figures, each beside its ceiling, as a table or as one JSON object."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Figure:
    """One measured value. Values are medians; higher is better in every unit used here."""

    name: str
    value: float
    unit: str
    ceiling: float
    ceiling_name: str
    ratio: float
    """``value / ceiling``."""
    target: float | None
    """The ratio that is asked for."""
    runs: list[float]


def figure(
    name: str,
    unit: str,
    runs: Sequence[float],
    ceiling_name: str,
    ceilings: Sequence[float],
    target: float | None = None,
) -> Figure:
    """A figure from repeated runs of the measured thing and of its ceiling."""
    value, ceiling = statistics.median(runs), statistics.median(ceilings)
    return Figure(
        name=name,
        value=round(value, 2),
        unit=unit,
        ceiling=round(ceiling, 2),
        ceiling_name=ceiling_name,
        ratio=round(value / ceiling, 4),
        target=target,
        runs=[round(run, 2) for run in runs],
    )


def host() -> dict[str, object]:
    """The machine that was measured."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def report(bench: str, figures: Sequence[Figure]) -> dict[str, object]:
    """The JSON object of one benchmark."""
    return {"bench": bench, "host": host(), "figures": [asdict(one) for one in figures]}
