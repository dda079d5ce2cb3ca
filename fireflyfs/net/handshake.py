"""Both ends of a new connection prove that they know the cluster's secret; without IO.

HELLO and CHALLENGE carry a nonce each, CHALLENGE and PROOF an HMAC over everything said so far and
the direction, so that no proof can be replayed or sent back. ``proto/wire.md`` has the bytes.
"""

from __future__ import annotations

import hmac
import secrets
import struct

from fireflyfs import limits
from fireflyfs.errors import Code, FsError, code_of
from fireflyfs.net.credentials import MAX_CLUSTER_ID, Credentials

MAGIC = b"FFHS"
VERSION = 1
HELLO = 1
CHALLENGE = 2
PROOF = 3
RESULT = 4

_PREFIX = struct.Struct("<4sBBH")
PREFIX_SIZE = _PREFIX.size
_NONCE_SIZE = 32
_PROOF_SIZE = 32
_HELLO = struct.Struct(f"<I{_NONCE_SIZE}s")
_CHALLENGE = struct.Struct(f"<I{_NONCE_SIZE}s{_PROOF_SIZE}s")
_RESULT = struct.Struct("<H")
assert PREFIX_SIZE == 8
assert (_HELLO.size, _CHALLENGE.size, _RESULT.size) == (36, 68, 2)
assert PREFIX_SIZE + _HELLO.size + MAX_CLUSTER_ID <= limits.MAX_HANDSHAKE

CAPABILITIES = 0
"""Bits of optional abilities that both sides need before one uses them; none is defined yet."""

_SERVER = b"fireflyfs server 1"
_CLIENT = b"fireflyfs client 1"


def parse_prefix(data: bytes) -> tuple[int, int]:
    """(type, length of what follows). Raises FsError(MALFORMED)."""
    magic, version, kind, length = _PREFIX.unpack(data)
    if magic != MAGIC:
        raise FsError(Code.MALFORMED, "not a FireflyFS handshake")
    if version != VERSION:
        raise FsError(Code.MALFORMED, f"handshake version {version}, we speak {VERSION}")
    if length > limits.MAX_HANDSHAKE - PREFIX_SIZE:
        raise FsError(Code.MALFORMED, f"a handshake message of {length} bytes")
    return kind, length


def result(code: Code) -> bytes:
    """The server's last word: OK, or why it closes the connection."""
    return _message(RESULT, _RESULT.pack(code))


class ClientHandshake:
    """``hello`` is sent first; ``answer`` makes the proof; ``finish`` reads the result."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        nonce = secrets.token_bytes(_NONCE_SIZE)
        body = _HELLO.pack(CAPABILITIES, nonce) + credentials.cluster_id.encode()
        self.hello = _message(HELLO, body)

    def answer(self, kind: int, body: bytes) -> bytes:
        """Check the server's CHALLENGE and make our PROOF. Raises FsError(WRONG_CLUSTER,
        UNAUTHENTICATED, MALFORMED)."""
        if kind == RESULT:
            self.finish(kind, body)
        if kind != CHALLENGE or len(body) != _CHALLENGE.size:
            raise FsError(Code.MALFORMED, f"handshake message {kind} instead of the challenge")
        said, proof = body[:-_PROOF_SIZE], body[-_PROOF_SIZE:]
        if not hmac.compare_digest(proof, self._credentials.proof(_SERVER, self.hello, said)):
            raise FsError(Code.UNAUTHENTICATED, "the server does not know the cluster's secret")
        return _message(PROOF, self._credentials.proof(_CLIENT, self.hello, body))

    def finish(self, kind: int, body: bytes) -> None:
        if kind != RESULT or len(body) != _RESULT.size:
            raise FsError(Code.MALFORMED, f"handshake message {kind} instead of the result")
        code = code_of(_RESULT.unpack(body)[0])
        if code is not Code.OK:
            cluster = self._credentials.cluster_id
            raise FsError(code, f"the server refused us as {cluster!r}: {code.name}")


class ServerHandshake:
    """``challenge`` answers the client's HELLO; ``check`` reads its PROOF."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._hello = b""
        self._challenge = b""

    def challenge(self, kind: int, body: bytes) -> bytes:
        """Raises FsError(MALFORMED, WRONG_CLUSTER)."""
        if kind != HELLO or not _HELLO.size < len(body) <= _HELLO.size + MAX_CLUSTER_ID:
            raise FsError(Code.MALFORMED, f"handshake message {kind} instead of a hello")
        if body[_HELLO.size :] != self._credentials.cluster_id.encode():
            raise FsError(Code.WRONG_CLUSTER, "the client belongs to another cluster")
        self._hello = _message(HELLO, body)
        nonce = secrets.token_bytes(_NONCE_SIZE)
        said = _HELLO.pack(CAPABILITIES, nonce)
        self._challenge = said + self._credentials.proof(_SERVER, self._hello, said)
        return _message(CHALLENGE, self._challenge)

    def check(self, kind: int, body: bytes) -> None:
        """Raises FsError(MALFORMED, UNAUTHENTICATED)."""
        if kind != PROOF or len(body) != _PROOF_SIZE:
            raise FsError(Code.MALFORMED, f"handshake message {kind} instead of a proof")
        expected = self._credentials.proof(_CLIENT, self._hello, self._challenge)
        if not hmac.compare_digest(body, expected):
            raise FsError(Code.UNAUTHENTICATED, "the client does not know the cluster's secret")


def _message(kind: int, body: bytes) -> bytes:
    return _PREFIX.pack(MAGIC, VERSION, kind, len(body)) + body
