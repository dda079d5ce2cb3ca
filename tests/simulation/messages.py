"""What processes of the simulation tell each other: ``fireflyfs.net.messages`` without bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain_replication.events import Update
    from chain_replication.versions import AppliedTag
    from tests.simulation.store import Content


@dataclass(frozen=True, slots=True)
class Updating:
    chain: int
    chain_version: int
    update: Update
    payload: Content


@dataclass(frozen=True, slots=True)
class Forwarding:
    chain: int
    chain_version: int
    source: int
    version: int
    update: Update
    payload: Content
    tags: tuple[AppliedTag, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    chain: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Flushing:
    chain: int
    chain_version: int


@dataclass(frozen=True, slots=True)
class Listing:
    chain: int
    chain_version: int
    after: bytes
    limit: int


@dataclass(frozen=True, slots=True)
class Finishing:
    """The successor holds everything."""

    chain: int
    chain_version: int
