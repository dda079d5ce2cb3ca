from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fireflyfs.errors import Code, FsError
from fireflyfs.net import handshake
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.handshake import PREFIX_SIZE, ClientHandshake, ServerHandshake, parse_prefix
from fireflyfs.rpc.auth import TokenCheck, make_token

if TYPE_CHECKING:
    from pathlib import Path

GOOD = Credentials("cluster", b"s" * 32)


def test_the_secret_is_not_printed() -> None:
    assert "ssss" not in repr(GOOD)


def test_a_created_secret_is_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    Credentials.create(path)
    first = Credentials.load("c", path)
    Credentials.create(path)
    assert Credentials.load("c", path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_bad_secret_files_are_named(tmp_path: Path) -> None:
    open_to_all, short = tmp_path / "open", tmp_path / "short"
    open_to_all.write_bytes(b"s" * 32)
    open_to_all.chmod(0o640)
    short.write_bytes(b"s\n")
    short.chmod(0o600)
    for path in (open_to_all, short, tmp_path / "missing", tmp_path):
        with pytest.raises(FsError, match=str(path)) as caught:
            Credentials.load("c", path)
        assert caught.value.code is Code.CONFIG
        assert "\n" not in str(caught.value)


def test_proofs_depend_on_where_parts_end() -> None:
    assert GOOD.proof(b"ab", b"c") != GOOD.proof(b"a", b"bc")


def parts(message: bytes) -> tuple[int, bytes]:
    kind, length = parse_prefix(message[:PREFIX_SIZE])
    assert length == len(message) - PREFIX_SIZE
    return kind, message[PREFIX_SIZE:]


def test_two_that_know_the_secret_meet() -> None:
    client, server = ClientHandshake(GOOD), ServerHandshake(GOOD)
    challenge = server.challenge(*parts(client.hello))
    server.check(*parts(client.answer(*parts(challenge))))
    client.finish(*parts(handshake.result(Code.OK)))


def test_the_server_refuses_another_cluster() -> None:
    other = ClientHandshake(Credentials("other", GOOD.secret))
    with pytest.raises(FsError) as caught:
        ServerHandshake(GOOD).challenge(*parts(other.hello))
    assert caught.value.code is Code.WRONG_CLUSTER


def test_each_side_refuses_another_secret() -> None:
    stranger = Credentials(GOOD.cluster_id, b"t" * 32)
    client, server = ClientHandshake(GOOD), ServerHandshake(stranger)
    challenge = server.challenge(*parts(client.hello))
    with pytest.raises(FsError) as caught:
        client.answer(*parts(challenge))
    assert caught.value.code is Code.UNAUTHENTICATED
    server = ServerHandshake(GOOD)
    server.challenge(*parts(client.hello))
    with pytest.raises(FsError) as caught:
        server.check(handshake.PROOF, bytes(32))
    assert caught.value.code is Code.UNAUTHENTICATED


def test_a_proof_cannot_be_replayed_or_sent_back() -> None:
    client, server = ClientHandshake(GOOD), ServerHandshake(GOOD)
    challenge = server.challenge(*parts(client.hello))
    proof = client.answer(*parts(challenge))
    again = ServerHandshake(GOOD)
    again.challenge(*parts(client.hello))
    with pytest.raises(FsError):
        again.check(*parts(proof))
    with pytest.raises(FsError):
        server.check(handshake.PROOF, parts(challenge)[1][-32:])


@pytest.mark.parametrize(
    "prefix", [b"GET / HT", b"FFHS\x02\x01\0\0", b"FFHS\x01\x01\xff\xff", b"\xff" * 8]
)
def test_a_bad_prefix_is_malformed(prefix: bytes) -> None:
    with pytest.raises(FsError) as caught:
        parse_prefix(prefix)
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize("body", [b"", b"x" * 36, b"x" * 101])
def test_a_hello_of_a_wrong_size_is_malformed(body: bytes) -> None:
    with pytest.raises(FsError) as caught:
        ServerHandshake(GOOD).challenge(handshake.HELLO, body)
    assert caught.value.code is Code.MALFORMED


def test_a_grpc_token_is_good_once_for_its_method_and_time() -> None:
    check = TokenCheck(GOOD)
    token = make_token(GOOD, "/s/A", 1000.0)
    refused = [
        ("/s/B", token, 1000.0),
        ("/s/A", token, 1031.1),
        ("/s/A", token, 968.9),
        ("/s/A", token[:-1], 1000.0),
        ("/s/A", "", 1000.0),
        ("/s/A", "v1:::", 1000.0),
        ("/s/A", make_token(Credentials("other", GOOD.secret), "/s/A", 1000.0), 1000.0),
        ("/s/A", make_token(Credentials("cluster", b"t" * 32), "/s/A", 1000.0), 1000.0),
    ]
    for method, value, now in refused:
        with pytest.raises(FsError) as caught:
            check.check(method, value, now)
        assert caught.value.code is Code.UNAUTHENTICATED
    check.check("/s/A", token, 1000.0)
    with pytest.raises(FsError, match="used before"):
        check.check("/s/A", token, 1001.0)
    check.check("/s/A", make_token(GOOD, "/s/A", 1061.0), 1061.0)
