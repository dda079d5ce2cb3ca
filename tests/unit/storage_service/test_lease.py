from __future__ import annotations

import pytest
import trio

from fireflyfs.clock import since_boot
from fireflyfs.errors import Code, FsError
from storage_service.lease import Lease


async def test_it_lasts_from_when_the_heartbeat_was_sent(autojump_clock: trio.abc.Clock) -> None:
    held = Lease()
    assert not held.is_valid
    sent = trio.current_time()
    await trio.sleep(1)
    held.extend(sent, 2.5)
    await trio.sleep(1.4)
    held.check()
    held.extend(sent - 1, 2.5)
    held.check()
    await trio.sleep(0.2)
    with pytest.raises(FsError) as caught:
        held.check()
    assert caught.value.code is Code.LEASE_EXPIRED


async def test_it_ends_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    held, now = Lease(), since_boot()
    held.extend(trio.current_time(), 2.5)
    held.check()
    monkeypatch.setattr("storage_service.lease.since_boot", lambda: now + 600)
    assert not held.is_valid
