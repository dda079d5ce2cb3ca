"""Where a target stands: its place in the chain and its local state. Pure.

Local state follows the published one:

    published    local     becomes   because
    SERVING      UPTODATE  -         it goes on, over any change of the chain
    SERVING      ONLINE    UPTODATE  restarted, as one that holds every acknowledged write: once all
                                     its stored pending versions are committed
    SYNCING      UPTODATE  -         only if it was brought up to date in this chain version
    not SERVING  UPTODATE  ONLINE    the chain went on without it
    not in use   OFFLINE   ONLINE    it had stepped down, the chain has taken note, and a while has
                                     passed
    LASTSRV      OFFLINE   OFFLINE   it has lost its content: it may not revive the chain
    any          OFFLINE   OFFLINE   its store has failed: until the node restarts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.routing import LocalState, PublicState

if TYPE_CHECKING:
    from fireflyfs.ids import TargetId
    from fireflyfs.routing import Chain, ChainTarget

STEPPED_DOWN_SECONDS = 5.0
"""How long a target that stepped down stays away: the chain shall not flap."""


@dataclass(slots=True)
class Standing:
    target: TargetId
    chain: Chain | None = None
    local: LocalState = LocalState.ONLINE
    reason: str = ""
    """Why it is offline."""
    has_failed: bool = False
    down_since: float = 0.0
    synced: int = 0
    """Chain version in which the predecessor said that we hold everything."""
    content_lost: bool = False
    """The store is empty although the chain may count on it: it must not revive the chain."""
    session: int = 0
    """Chain version in which the predecessor began to compare, in the life of this process."""

    @property
    def chain_version(self) -> int:
        return 0 if self.chain is None else self.chain.version

    @property
    def public(self) -> PublicState:
        mine = None if self.chain is None else self.chain.find(self.target)
        return PublicState.OFFLINE if mine is None else mine.state

    @property
    def is_serving(self) -> bool:
        """May answer reads and take updates, as far as this node knows."""
        return self.local is LocalState.UPTODATE and self.public is PublicState.SERVING

    @property
    def is_syncing(self) -> bool:
        return self.local is not LocalState.OFFLINE and self.public is PublicState.SYNCING

    @property
    def is_head(self) -> bool:
        head = None if self.chain is None else self.chain.head
        return head is not None and head.target_id == self.target

    @property
    def successor(self) -> ChainTarget | None:
        return None if self.chain is None else self.chain.successor(self.target)

    def follow(self, chain: Chain | None) -> bool:
        """Take a new version of the chain; True if the local state has changed."""
        self.chain = chain
        self.session = 0
        if self.local is not LocalState.UPTODATE or self.public is PublicState.SERVING:
            return False
        if self.public is PublicState.SYNCING and self.synced == self.chain_version:
            return False
        self.local = LocalState.ONLINE
        return True

    def step_down(self, reason: str, now: float) -> None:
        self.local, self.reason, self.down_since = LocalState.OFFLINE, reason, now

    def lose_content(self, reason: str) -> None:
        """Stay offline until the chain counts on others; then come back by recovery."""
        self.content_lost = True
        self.step_down(reason, -STEPPED_DOWN_SECONDS)

    def recover(self, now: float) -> bool:
        """After stepping down; True if the target is online again."""
        if self.content_lost and (self.chain is None or self.public is PublicState.LASTSRV):
            return False
        in_use = self.public in (PublicState.SERVING, PublicState.SYNCING)
        rested = now - self.down_since >= STEPPED_DOWN_SECONDS
        if self.local is not LocalState.OFFLINE or self.has_failed or in_use or not rested:
            return False
        self.local, self.reason = LocalState.ONLINE, ""
        return True

    # What callers must be; each raises FsError.

    def check_version(self, chain_version: int) -> None:
        """ROUTING_STALE: the caller and this node see different versions of the chain."""
        if self.chain is None or chain_version != self.chain_version:
            raise FsError(
                Code.ROUTING_STALE,
                f"target {self.target} is at chain version {self.chain_version}, "
                f"the request at {chain_version}",
            )

    def check_serving(self) -> None:
        """NOT_SERVING, or TARGET_FAILED with the reason."""
        if self.is_serving:
            return
        code = Code.TARGET_FAILED if self.has_failed else Code.NOT_SERVING
        why = f": {self.reason}" if self.reason else ""
        raise FsError(
            code,
            f"target {self.target} is {self.public.name.lower()} in chain version "
            f"{self.chain_version}, locally {self.local.name.lower()}{why}",
        )

    def check_head(self) -> None:
        self.check_serving()
        if not self.is_head:
            raise FsError(Code.ROUTING_STALE, f"target {self.target} is not the head of its chain")

    def check_predecessor(self, source: int) -> None:
        before = None if self.chain is None else self.chain.predecessor(self.target)
        if before is None or before.target_id != source:
            raise FsError(
                Code.ROUTING_STALE, f"target {source} does not precede target {self.target}"
            )

    def check_syncing(self) -> None:
        if not self.is_syncing:
            raise FsError(Code.ROUTING_STALE, f"target {self.target} is not being synced")
