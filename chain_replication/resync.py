"""Which chunks of a successor differ from ours: the comparison of two listings. Pure.

Two copies are the same if version, length and checksum agree and nothing is pending on the far
side. The chain version of a copy says only when it was stored: a copy that recovery has brought was
stored later than its source, so comparing that would move everything again at every return.

Both listings are in order of chunk ids and are compared range by range, each range as far as both
are known. What is found is a hint: the replica looks at the chunk again when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST = b"\xff" * 16
"""No chunk has a greater id."""


@dataclass(frozen=True, slots=True)
class Listed:
    chunk: bytes
    version: int
    """Committed; 0 if the first version is still pending."""
    checksum: int
    length: int
    pending: bool


@dataclass(slots=True)
class Difference:
    upto: bytes
    """Everything up to this id (inclusive) has been compared."""
    removals: list[bytes] = field(default_factory=list)
    """Only the far side has them."""
    copies: list[bytes] = field(default_factory=list)
    """Missing on the far side, or other than ours."""


def compare(
    ours: Sequence[Listed], ours_end: bool, theirs: Sequence[Listed], theirs_end: bool
) -> Difference:
    """Compare two pages that begin after the same id; ``*_end``: nothing comes after the page."""
    upto = min(_reach(ours, ours_end), _reach(theirs, theirs_end))
    difference = Difference(upto)
    far = {listed.chunk: listed for listed in theirs if listed.chunk <= upto}
    for mine in ours:
        if mine.chunk > upto:
            break
        other = far.pop(mine.chunk, None)
        if mine.version and (other is None or not _is_same(mine, other)):
            difference.copies.append(mine.chunk)
    difference.removals = list(far)
    return difference


def _reach(page: Sequence[Listed], end: bool) -> bytes:
    return LAST if end or not page else page[-1].chunk


def _is_same(ours: Listed, theirs: Listed) -> bool:
    if theirs.pending:
        return False
    return (ours.version, ours.length, ours.checksum) == (
        theirs.version,
        theirs.length,
        theirs.checksum,
    )
