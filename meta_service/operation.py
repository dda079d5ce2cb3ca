"""How an operation runs: in a transaction, again after conflicts, once for each request.

An operation is ``async def op(tr, request, context) -> reply``: it reads and writes through ``tr``
alone, so it may run any number of times until one run commits. A request that changes something
carries (client, request id). Its answer is stored under them in the same transaction, so a retry,
by this server after an unknown commit or by the client through another server, finds the answer
instead of acting twice. Errors are not stored: an operation that failed has done nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from google.protobuf.message import Message

from fireflyfs.clock import file_time_ns
from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId, InodeId
from fireflyfs.kv import keys
from fireflyfs.kv.retry import transact
from meta_service.schema import ResultRow, decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.kv.base import Engine, Transaction
    from fireflyfs.layout import Layout
    from fireflyfs.rpc import meta_pb2 as pb
    from fireflyfs.rpc.methods import Rpc
    from meta_service.inodes import InodeIds, Layouts

Req = TypeVar("Req", bound=Message)
Rep = TypeVar("Rep", bound=Message)

DEADLINE = 6.0
"""Seconds that one request is tried again here; then the client asks another server."""
RESULT_SECONDS = 60
"""How long an answer is kept: well beyond any client's deadline for a request."""
SWEEP_PAGE = 500


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation knows besides its request; the same in each of its runs."""

    now: int
    """Nanoseconds since 1970."""
    new_inode: InodeId
    """A fresh number; 0 for operations that make no inode."""
    layout_for: Callable[[InodeId], Layout]


class Mutation(Protocol):
    """A request that changes something."""

    @property
    def caller(self) -> pb.Caller: ...


class Operations:
    """Runs operations on one store."""

    def __init__(
        self,
        engine: Engine,
        inode_ids: InodeIds,
        layouts: Layouts,
        clock: Callable[[], int] = file_time_ns,
    ) -> None:
        self._engine = engine
        self._inode_ids = inode_ids
        self._layouts = layouts
        self._clock = clock

    async def run(
        self, op: Callable[[Transaction, Req, Context], Awaitable[Rep]], request: Req
    ) -> Rep:
        """An operation that only reads, or that does no harm when it runs twice.

        Raises:
            FsError: the operation's, or the store's after ``DEADLINE`` seconds.
        """
        context = Context(self._clock(), InodeId(0), self._layouts.of)
        return await transact(self._engine, lambda tr: op(tr, request, context), timeout=DEADLINE)

    async def run_once(
        self,
        rpc: Rpc[Req, Rep],
        op: Callable[[Transaction, Any, Context], Awaitable[Rep]],
        request: Mutation,
        *,
        creates: bool = False,
    ) -> Rep:
        """An operation that must act once for each (client, request id) of its caller.

        Raises:
            FsError: as ``run``; ``INVALID`` for a request id that another method has used;
                ``NO_SPACE`` for a new inode when the store's disk is full.
        """
        caller = request.caller
        number = caller.request_id or secrets.randbits(63)
        key = keys.request_key(ClientId(caller.client_id), number)
        new_inode = await self._inode_ids.take() if creates else InodeId(0)
        context = Context(self._clock(), new_inode, self._layouts.of)

        async def attempt(tr: Transaction) -> Rep:
            stored = await tr.get(key)
            if stored is not None:
                return _answered(rpc, decode(ResultRow, stored))
            reply = await op(tr, request, context)
            if creates and getattr(reply, "created", False) and not self._engine.has_room():
                raise FsError(Code.NO_SPACE, "the disk of the metadata is full")
            tr.set(key, encode(ResultRow(context.now, rpc.name, reply.SerializeToString())))
            return reply

        return await transact(self._engine, attempt, timeout=DEADLINE)


def _answered(rpc: Rpc[Req, Rep], row: ResultRow) -> Rep:
    if row.method != rpc.name:
        raise FsError(Code.INVALID, f"the request id of a {rpc.name} was used for {row.method}")
    return rpc.reply.FromString(row.reply)


async def sweep_results(engine: Engine, now: int) -> int:
    """Clear answers that no retry can ask for any more, page by page; how many there were."""
    begin, end = keys.all_requests_range()
    swept = 0
    while begin < end:
        page = partial(_sweep, begin=begin, end=end, now=now)
        begin, cleared = await transact(engine, page)
        swept += cleared
    return swept


async def _sweep(tr: Transaction, begin: bytes, end: bytes, now: int) -> tuple[bytes, int]:
    page = await tr.get_range(begin, end, limit=SWEEP_PAGE, snapshot=True)
    horizon = now - RESULT_SECONDS * 10**9
    old = [key for key, value in page if decode(ResultRow, value).committed < horizon]
    for key in old:
        tr.clear(key)
    return keys.after(page[-1][0]) if len(page) == SWEEP_PAGE else end, len(old)
