"""The suite over TCP and Unix sockets."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.net import client
from fireflyfs.net.address import Address
from fireflyfs.net.messages import Method
from fireflyfs.net.server import serve
from tests.conformance.carrier_suite import GOOD, CarrierSuite, Toy, calling, serving

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.net.client import Peers


class TestTcp(CarrierSuite):
    @pytest.fixture
    def place(self) -> str:
        return "tcp://127.0.0.1:0"


class TestUnix(CarrierSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return f"unix://{tmp_path}/s"


async def refused(place: str) -> FsError:
    with pytest.raises(FsError) as caught:
        await serve([Address.parse(place)], GOOD, Toy().handle)
    assert caught.value.code is Code.CONFIG
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_busy_address_is_a_line_of_configuration(tmp_path: Path) -> None:
    for place in (f"unix://{tmp_path}/s", "tcp://127.0.0.1:0"):
        async with serving(place, Toy().handle) as (at,):
            assert at in str(await refused(at))


async def test_nobody_listens_beyond_this_host_by_accident() -> None:
    assert "beyond this host" in str(await refused("tcp://0.0.0.0:0"))


async def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(f"unix://{path}", Toy().handle) as at, calling() as peers:
        await peers.call(at, Method.PING, None, timeout=5)
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_another_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "another file" in str(await refused(f"unix://{path}"))
    assert path.read_text() == "data"
    assert "No such file" in str(await refused(f"unix://{tmp_path}/no/s"))


async def test_the_second_address_is_taken_when_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving("tcp://127.0.0.1:0", Toy().handle) as (at,), calling() as peers:
        await peers.call((f"unix://{path}", at), Method.PING, None, timeout=5)


async def test_an_address_where_nobody_is() -> None:
    async with calling() as peers:
        for at in ((), ("unix:///nonexistent/s",), ("tcp://127.0.0.1:1",)):
            with pytest.raises(FsError) as caught:
                await peers.call(at, Method.PING, None, timeout=5)
            assert caught.value.code is Code.UNREACHABLE


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with serving(f"unix://{tmp_path}/s", Toy().handle) as at, calling() as peers:
            await peers.call(at, Method.PING, None, timeout=5)
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_callers_share_one_attempt_to_connect_and_its_failure() -> None:
    """A peer that does not answer costs all its callers one time-out, not one after the other."""
    failed: list[FsError] = []

    async def one(peers: Peers, at: str) -> None:
        with pytest.raises(FsError) as caught:
            await peers.call((at,), Method.PING, None, timeout=60)
        failed.append(caught.value)

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        at = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch, trio.fail_after(2):
            patch.setattr(client, "HANDSHAKE_SECONDS", 0.2)
            async with calling() as peers, trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one, peers, at)
    assert [error.code for error in failed] == [Code.UNREACHABLE] * 20
    assert len({id(error) for error in failed}) == 20
