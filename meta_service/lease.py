"""One server at a time does the background work.

The lease saves double work; it does not guard correctness. Every job may be done by two servers at
once (a slow one whose lease ran out goes on with its step), and clocks may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireflyfs.kv import keys
from fireflyfs.kv.retry import transact
from meta_service.schema import LeaseRow, decode, encode

if TYPE_CHECKING:
    from fireflyfs.ids import Generation
    from fireflyfs.kv.base import Engine, Transaction

LEASE_SECONDS = 10
KEY = keys.lease_key("background")


async def hold(engine: Engine, holder: Generation, now: int) -> bool:
    """Take or keep the lease; false while another server has it. Raises FsError: the store's."""

    async def attempt(tr: Transaction) -> bool:
        stored = await tr.get(KEY)
        if stored is not None:
            lease = decode(LeaseRow, stored)
            if lease.holder != holder and lease.until > now:
                return False
            if lease.holder == holder and lease.until - now > LEASE_SECONDS * 10**9 // 2:
                return True
        tr.set(KEY, encode(LeaseRow(holder, now + LEASE_SECONDS * 10**9)))
        return True

    return await transact(engine, attempt)
