"""Credentials of a gRPC call: one metadata entry that proves knowledge of the cluster's secret.

``fireflyfs-auth: v1:TIMESTAMP:NONCE:PROOF``: decimal seconds since 1970, 32 hex digits, and the
HMAC-SHA256 (hex) of cluster id, full method name, timestamp and nonce (``Credentials.proof``). It
is good for 30 s around the server's clock, for that method, once. The message itself is not
covered: beyond loopback gRPC needs TLS as well.
"""

from __future__ import annotations

import collections
import hmac
import secrets
import threading
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from fireflyfs.net.credentials import Credentials

AUTH_KEY = "fireflyfs-auth"
WINDOW_SECONDS = 30.0
_VERSION = "v1"
_LABEL = b"fireflyfs grpc 1"


def make_token(credentials: Credentials, method: str, now: float) -> str:
    """The value for one call; ``now`` in seconds since 1970."""
    timestamp, nonce = str(int(now)), secrets.token_hex(16)
    proof = _proof(credentials, method, timestamp, nonce)
    return f"{_VERSION}:{timestamp}:{nonce}:{proof}"


class TokenCheck:
    """Checks tokens and remembers them for as long as they could be replayed; for any thread."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._order: collections.deque[tuple[float, str]] = collections.deque()

    def check(self, method: str, token: str, now: float) -> None:
        """Raises FsError(UNAUTHENTICATED)."""
        version, _, rest = token.partition(":")
        timestamp, _, rest = rest.partition(":")
        nonce, _, proof = rest.partition(":")
        expected = _proof(self._credentials, method, timestamp, nonce)
        if version != _VERSION or not hmac.compare_digest(proof.encode(), expected.encode()):
            raise FsError(Code.UNAUTHENTICATED, "the call does not prove the cluster's secret")
        if not timestamp.isdecimal() or abs(now - int(timestamp)) > WINDOW_SECONDS:
            raise FsError(Code.UNAUTHENTICATED, "the call's credentials have expired")
        if not self._is_first(nonce, now):
            raise FsError(Code.UNAUTHENTICATED, "the call's credentials were used before")

    def _is_first(self, nonce: str, now: float) -> bool:
        with self._lock:
            while self._order and self._order[0][0] < now:
                self._seen.discard(self._order.popleft()[1])
            if nonce in self._seen:
                return False
            self._seen.add(nonce)
            self._order.append((now + 2 * WINDOW_SECONDS, nonce))
            return True


def _proof(credentials: Credentials, method: str, timestamp: str, nonce: str) -> str:
    parts = (credentials.cluster_id, method, timestamp, nonce)
    return credentials.proof(_LABEL, *(part.encode() for part in parts)).hex()
