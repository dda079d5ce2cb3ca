"""Clocks: of file times, and one that does not stand still."""

from __future__ import annotations

import time

CLOCK_REALTIME_COARSE = 5
"""linux/time.h; Python has no name for it."""


def file_time_ns() -> int:
    """Now, as the kernel stamps files (nanoseconds since 1970; it ticks every few milliseconds).

    ``touch`` carries the kernel's own time to us: beside stamps of a finer clock it would set
    times back.
    """
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


def since_boot() -> float:
    """Seconds, those of suspension included (trio's clock leaves them out)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
