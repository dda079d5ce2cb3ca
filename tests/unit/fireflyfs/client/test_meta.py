from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
import trio

from fireflyfs.client.cluster import Cluster
from fireflyfs.client.meta import MetaClient
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId
from fireflyfs.net.client import Reply
from fireflyfs.rpc.meta_pb2 import Caller, Inode, InodeReply, MkdirRequest
from fireflyfs.rpc.methods import MetaRpc
from tests.unit.fireflyfs.client.fakes import CONFIG, routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from fireflyfs.net.client import Peers
    from fireflyfs.net.messages import Method
    from fireflyfs.rpc.channel import Channel


@dataclass
class FakeServers:
    """Metadata servers 10 and 11 that answer every Mkdir, unless they fail."""

    failures: list[FsError] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    requests: list[MkdirRequest] = field(default_factory=list)

    async def call(
        self,
        addresses: Sequence[str],
        method: Method,
        body: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout: float,
        into: Sequence[memoryview] | None = None,
    ) -> Reply:
        await trio.lowlevel.checkpoint()
        number = int(addresses[0].rpartition("-")[2])
        self.asked.append(number)
        self.requests.append(MkdirRequest.FromString(bytes(payload[0])))
        if number in self.dead:
            raise FsError(Code.UNREACHABLE, f"server {number} is gone")
        if self.failures:
            raise self.failures.pop(0)
        answer = InodeReply(inode=Inode(id=5)).SerializeToString()
        return Reply(None, memoryview(answer), len(answer))


@pytest.fixture
def servers() -> FakeServers:
    return FakeServers()


def client(servers: FakeServers, metas: Sequence[int] = (10, 11)) -> MetaClient:
    cluster = Cluster(CONFIG, cast("Peers", servers), cast("Channel", None), ClientId(77))
    cluster.adopt(routing(1, [1], metas=metas))
    return MetaClient(cluster)


def request() -> MkdirRequest:
    return MkdirRequest(parent=1, name=b"d", caller=Caller(uid=3))


async def test_a_request_is_signed_once(servers: FakeServers, autojump_clock: object) -> None:
    meta = client(servers)
    servers.failures = [FsError(Code.KV_UNKNOWN_RESULT, "maybe"), FsError(Code.TIMED_OUT, "late")]
    reply = await meta.call(MetaRpc.MKDIR, request())
    await meta.call(MetaRpc.MKDIR, request())
    assert reply.inode.id == 5
    ids = [r.caller.request_id for r in servers.requests]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert {(r.caller.client_id, r.caller.uid) for r in servers.requests} == {(77, 3)}


async def test_another_server_takes_over(servers: FakeServers, autojump_clock: object) -> None:
    meta = client(servers)
    servers.dead = {10}
    for _ in range(3):
        await meta.call(MetaRpc.MKDIR, request())
    assert servers.asked == [10, 11, 11, 11]
    servers.dead = {11}
    await meta.call(MetaRpc.MKDIR, request())
    assert servers.asked[4:] == [11, 10]


async def test_a_conflict_stays_with_the_server(
    servers: FakeServers, autojump_clock: object
) -> None:
    servers.failures = [FsError(Code.KV_CONFLICT, "again")]
    await client(servers).call(MetaRpc.MKDIR, request())
    assert servers.asked == [10, 10]


async def test_an_answer_is_final(servers: FakeServers) -> None:
    servers.failures = [FsError(Code.EXISTS, "it is there")]
    with pytest.raises(FsError, match="it is there"):
        await client(servers).call(MetaRpc.MKDIR, request())
    assert len(servers.asked) == 1


@pytest.mark.parametrize(("metas", "reason"), [((10,), "gone"), ((), "no metadata server")])
async def test_the_deadline_ends_it(
    servers: FakeServers, metas: Sequence[int], reason: str, autojump_clock: object
) -> None:
    servers.dead = {10}
    start = trio.current_time()
    with pytest.raises(FsError, match=f"Mkdir: gave up after 30 s.*{reason}") as caught:
        await client(servers, metas).call(MetaRpc.MKDIR, request())
    assert caught.value.code is Code.UNREACHABLE
    assert trio.current_time() - start == pytest.approx(30, abs=0.1)


async def test_a_client_learns_that_it_was_silent(
    servers: FakeServers, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = 0.0
    renewed: list[float] = []
    monkeypatch.setattr("fireflyfs.client.meta.since_boot", lambda: trio.current_time() + asleep)

    async def renew() -> None:
        await trio.lowlevel.checkpoint()
        renewed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client(servers).keep_alive, "host", "/mnt", renew)
        await trio.sleep(95)
        assert not renewed
        asleep = 3600
        await trio.sleep(30)
        assert len(renewed) == 1
        servers.dead = {10, 11}
        await trio.sleep(60)
        servers.dead = set()
        await trio.sleep(20)
        assert len(renewed) == 2
        nursery.cancel_scope.cancel()
