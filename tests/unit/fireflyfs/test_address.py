from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address, preferred

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text",
    [
        "tcp://127.0.0.1:0",
        "tcp://localhost:65535",
        "tcp://node-7.example.org:41001",
        "tcp://[::1]:7000",
        "unix:///run/fireflyfs/meta.sock",
        "unix:///with space/ü.sock",
    ],
)
def test_an_address_prints_as_it_was_read(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:7000",
        "http://127.0.0.1:80",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://:7000",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:7 ",
        "tcp://127.0.0.1:٣",
        "tcp://::1:7000",
        "tcp://a b:1",
        "tcp://user@host:1",
        "unix://relative/path",
        "unix://",
        "unix:///" + "x" * 107,
        "unix:///nul\0",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(FsError) as caught:
        Address.parse(text)
    assert caught.value.code is Code.INVALID
    assert repr(text) in caught.value.message


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, "tcp://" + text, "unix:///" + text):
        try:
            address = Address.parse(candidate)
        except FsError as error:
            refusal: object = error.code
        else:
            refusal = None
            assert Address.parse(str(address)) == address
        assert refusal in (None, Code.INVALID)


def test_only_this_host_is_local() -> None:
    assert Address.parse("unix:///x").is_local
    assert Address.parse("tcp://127.1.2.3:1").is_local
    assert Address.parse("tcp://[::1]:1").is_local
    assert Address.parse("tcp://localhost:1").is_local
    assert not Address.parse("tcp://0.0.0.0:1").is_local
    assert not Address.parse("tcp://192.168.1.1:1").is_local
    assert not Address.parse("tcp://example.org:1").is_local


def test_existing_sockets_come_first_and_missing_ones_not_at_all(tmp_path: Path) -> None:
    here = tmp_path / "here.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(here))
        order = preferred(["tcp://h:1", f"unix://{tmp_path}/gone.sock", f"unix://{here}"])
    assert [str(address) for address in order] == [f"unix://{here}", "tcp://h:1"]
