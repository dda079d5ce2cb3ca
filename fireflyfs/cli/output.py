"""What every verb prints with: tables for people, one JSON object for programs, sizes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def print_json(value: Mapping[str, object]) -> None:
    print(json.dumps(value, indent=2, default=str))


def parse_size(text: str, option: str) -> int:
    """Bytes of ``1MiB``, ``64K``, ``1048576``; all units are powers of 1024.

    Raises FsError(CONFIG), naming the option.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise FsError(Code.CONFIG, f"{option} must be a size like 1MiB or 65536, not {text!r}")
    return int(match.group(1)) << _UNITS[match.group(2).lower()]


def format_size(count: int) -> str:
    """``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def format_seconds(seconds: float) -> str:
    """``3 s``, ``5 min``, ``2 h``, ``4 d``."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
