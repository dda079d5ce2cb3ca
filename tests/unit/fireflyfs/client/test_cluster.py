from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
import trio

from fireflyfs.client.cluster import Cluster
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId
from fireflyfs.rpc.cluster_pb2 import GetRoutingReply, GetRoutingRequest
from fireflyfs.rpc.convert import routing_to_proto
from tests.unit.fireflyfs.client.fakes import CONFIG, FakePeers, routing

if TYPE_CHECKING:
    from fireflyfs.net.client import Peers
    from fireflyfs.routing import Routing
    from fireflyfs.rpc.channel import Channel


@dataclass
class FakeManager:
    """Answers long polls: with a table that is newer, or nothing when the wait is over."""

    table: Routing
    failures: list[FsError] = field(default_factory=list)
    asked: int = 0

    async def call(self, rpc: object, request: object, *, timeout: float) -> object:
        assert isinstance(request, GetRoutingRequest)
        assert request.cluster_id == "fake"
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        for _ in range(int(request.wait_seconds * 10)):
            if self.table.version > request.known_version:
                return GetRoutingReply(routing=routing_to_proto(self.table))
            await trio.sleep(0.1)
        return GetRoutingReply()


def client(manager: FakeManager) -> Cluster:
    return Cluster(CONFIG, cast("Peers", FakePeers()), cast("Channel", manager), ClientId(1))


async def test_routing_is_followed(autojump_clock: object) -> None:
    manager = FakeManager(routing(3, [1]))
    cluster = client(manager)
    await cluster.start()
    assert cluster.routing == manager.table
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.follow)
        await trio.sleep(60)
        assert manager.asked < 10  # it polls long
        manager.table = routing(4, [2])
        await cluster.refresh(3, timeout=1)
        assert cluster.routing.version == 4
        start = trio.current_time()
        await cluster.refresh(4, timeout=1)
        assert trio.current_time() - start == pytest.approx(1)
        nursery.cancel_scope.cancel()


async def test_the_last_routing_serves_while_the_manager_is_away(autojump_clock: object) -> None:
    manager = FakeManager(routing(3, [1]))
    cluster = client(manager)
    await cluster.start()
    async with trio.open_nursery() as nursery:
        manager.failures = [FsError(Code.UNREACHABLE, "away")] * 40
        nursery.start_soon(cluster.follow)
        await trio.sleep(5)
        assert cluster.routing.version == 3
        manager.table = routing(5, [1])
        await cluster.refresh(3, timeout=10)
        assert cluster.routing.version == 5
        nursery.cancel_scope.cancel()


async def test_an_outage_of_the_manager_is_told_once(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manager = FakeManager(routing(3, [1]))
    cluster = client(manager)
    await cluster.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.follow)
        for _ in range(2):
            manager.failures = [FsError(Code.UNREACHABLE, "nobody there") for _ in range(20)]
            await trio.sleep(60)
        nursery.cancel_scope.cancel()
    said = [record.getMessage() for record in caplog.records]
    assert (
        said
        == [
            "no routing from the manager: nobody there",
            "the manager gives routing again",
        ]
        * 2
    )


async def test_an_older_table_is_not_taken() -> None:
    cluster = client(FakeManager(routing(3, [1])))
    cluster.adopt(routing(3, [1]))
    cluster.adopt(routing(2, [2]))
    assert cluster.routing.version == 3


async def test_a_manager_of_another_cluster_is_refused() -> None:
    manager = FakeManager(routing(3, [1]))
    manager.table = type(manager.table)("other", 4)
    with pytest.raises(FsError) as caught:
        await client(manager).start()
    assert caught.value.code is Code.WRONG_CLUSTER


@pytest.mark.parametrize(("code", "seconds"), [(Code.UNREACHABLE, 30), (Code.UNAUTHENTICATED, 0)])
async def test_a_start_without_a_manager_fails_in_time(
    code: Code, seconds: int, autojump_clock: object
) -> None:
    manager = FakeManager(routing(3, [1]), [FsError(code, "no")] * 1000)
    with pytest.raises(FsError, match=r"no routing from the manager \(unix:///manager\): no") as e:
        await client(manager).start()
    assert e.value.code is code
    assert trio.current_time() == pytest.approx(seconds, abs=0.5)
