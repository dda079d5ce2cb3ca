"""Where a namespace is on FoundationDB.

Keys of a namespace NAME begin with ``02 NAME 00``, which is what FoundationDB's own layers call
the subspace ("NAME",): many namespaces and other programs share one cluster, and no key of one is
in the range of another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fireflyfs.errors import Code, FsError

DEFAULT_NAME = "fireflyfs"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace on a cluster: ``fdb:/path/fdb.cluster?prefix=NAME``."""

    cluster_file: Path
    name: str = DEFAULT_NAME

    def __str__(self) -> str:
        return f"fdb:{self.cluster_file}?prefix={self.name}"

    @property
    def prefix(self) -> bytes:
        return b"\x02" + self.name.encode() + b"\x00"

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises FsError(CONFIG)."""
        file, question, query = url.removeprefix("fdb:").partition("?")
        option, _, name = query.partition("=") if question else ("prefix", "", DEFAULT_NAME)
        if not url.startswith("fdb:") or not Path(file).is_absolute() or option != "prefix":
            raise FsError(
                Code.CONFIG, f"a store on FoundationDB is fdb:/PATH/TO/fdb.cluster, not {url!r}"
            )
        if not _NAME.fullmatch(name):
            raise FsError(
                Code.CONFIG,
                f"a namespace's prefix is 1 to 64 letters, digits, '.', '_' and '-', not {name!r}",
            )
        return cls(Path(file), name)
