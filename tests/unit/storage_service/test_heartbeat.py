"""What a storage node makes of the manager's answers to its heartbeats."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import Generation, NodeId
from storage_service.heartbeat import Bell, Membership
from storage_service.lease import Lease
from storage_service.neighbours import Neighbours
from storage_service.targets import Targets


class Manager:
    """Answers every call with the same error."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.calls = 0

    async def call(self, rpc: Any, request: Any, *, timeout: float) -> Any:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        raise FsError(self.code, "no")


def _member(manager: Manager) -> Membership:
    neighbours = Neighbours(None, "c")  # type: ignore[arg-type]
    targets = Targets(NodeId(1), Generation(7))
    return Membership(manager, "c", "storage-1", targets, neighbours, Lease(), Bell())


@pytest.mark.parametrize("code", [Code.WRONG_CLUSTER, Code.SUPERSEDED])
async def test_a_node_that_will_never_be_heard_ends(code: Code) -> None:
    with pytest.raises(FsError) as raised:
        await _member(Manager(code)).beat([])
    assert raised.value.code is code


async def test_a_node_that_is_not_heard_now_goes_on_trying(
    autojump_clock: trio.testing.MockClock,
) -> None:
    manager = Manager(Code.UNREACHABLE)
    with trio.move_on_after(3):
        await _member(manager).beat([])
    assert manager.calls > 5
