"""The door to FoundationDB's official binding: what of it is used, how it is loaded, its errors.

The binding finds the native client (``libfdb_c.so``) and chooses the API version for the whole
process; both happen only when a store on FoundationDB is opened. Its classes have no stubs, so the
part that the engine touches is written down here, name for name (``fdb/impl.py``).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, cast

import trio

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

API_VERSION = 730


class Future(Protocol):
    def is_ready(self) -> bool: ...
    def on_ready(self, callback: Callable[[object], None]) -> None: ...
    def cancel(self) -> None: ...


class FutureVoid(Future, Protocol):
    def wait(self) -> None: ...


class FutureInt64(Future, Protocol):
    def wait(self) -> int: ...


class Value(Future, Protocol):
    """Do not compare, print or test one for truth: each of these blocks until it is ready."""

    @property
    def value(self) -> bytes | None: ...


class KeyValue(Protocol):
    key: bytes
    value: bytes


class FutureKeyValueArray(Future, Protocol):
    def wait(self) -> tuple[list[KeyValue], int, int]:
        """The pairs, how many they are, and whether there are more."""


class KeySelector(Protocol):
    """Opaque here."""


class KeySelectors(Protocol):
    def first_greater_or_equal(self, key: bytes) -> KeySelector: ...
    def first_greater_than(self, key: bytes) -> KeySelector: ...


class TransactionRead(Protocol):
    def get_read_version(self) -> FutureInt64: ...
    def get(self, key: bytes) -> Value: ...
    def _get_range(
        self,
        begin: KeySelector,
        end: KeySelector,
        limit: int,
        streaming_mode: int,
        iteration: int,
        reverse: bool,
    ) -> FutureKeyValueArray:
        """One batch; the public ``get_range`` gives an iterator that blocks between two."""


class TransactionOptions(Protocol):
    def set_timeout(self, milliseconds: int) -> None: ...


class Transaction(TransactionRead, Protocol):
    snapshot: TransactionRead
    options: TransactionOptions

    def set(self, key: bytes, value: bytes) -> None: ...
    def clear(self, key: bytes) -> None: ...
    def clear_range(self, begin: bytes, end: bytes) -> None: ...
    def add(self, key: bytes, param: bytes) -> None: ...
    def max(self, key: bytes, param: bytes) -> None: ...
    def set_versionstamped_key(self, key: bytes, param: bytes) -> None: ...
    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...
    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...
    def watch(self, key: bytes) -> FutureVoid: ...
    def commit(self) -> FutureVoid: ...
    def get_committed_version(self) -> int: ...
    def cancel(self) -> None: ...


class DatabaseOptions(Protocol):
    def set_transaction_timeout(self, milliseconds: int) -> None: ...


class Database(Protocol):
    options: DatabaseOptions

    def create_transaction(self) -> Transaction: ...


class FDBError(Protocol):
    code: int
    description: bytes


class Predicates(Protocol):
    def is_maybe_committed(self, error: FDBError) -> bool: ...
    def is_retryable(self, error: FDBError) -> bool: ...


class StreamingMode(Protocol):
    want_all: int
    exact: int


class Binding(Protocol):
    """The module ``fdb`` once its API version is chosen."""

    FDBError: type[Exception]
    KeySelector: KeySelectors
    StreamingMode: StreamingMode
    predicates: Predicates

    def open(self, cluster_file: str) -> Database:
        """Starts the process's network thread; one database for each file."""


def load() -> Binding:
    """The binding, ready; takes a moment the first time (it loads a library of 30 MB).

    Errors:
        FsError: ``CONFIG``, saying what to install.
    """
    try:
        import fdb
    except ImportError:
        raise FsError(
            Code.CONFIG,
            "a store on FoundationDB needs its Python binding: pip install 'fireflyfs[fdb]'",
        ) from None
    try:
        fdb.api_version(API_VERSION)
    except Exception as error:  # the binding raises plain ones, of no class of its own
        raise FsError(
            Code.CONFIG,
            f"FoundationDB's binding cannot be used ({error}): install its native client 7.3 "
            "(package foundationdb-clients from github.com/apple/foundationdb/releases)",
        ) from None
    return cast("Binding", fdb)


async def settle(future: Future) -> None:
    """Wait until a future is ready, without blocking; cancelling the wait cancels the future.

    ``on_ready`` calls from the network thread, and swallows what the callback raises: it may raise
    nothing, or a waiter would wait for ever. A callback that comes after the end of the run finds
    nobody, which is right.
    """
    if future.is_ready():
        return
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    def wake(_: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future.on_ready(wake)
    try:
        await done.wait()
    except BaseException:
        future.cancel()
        raise


async def settle_all(futures: Sequence[Future]) -> None:
    """Wait for futures that were asked for at once; one that is not waited for is cancelled."""
    waited = 0
    try:
        for future in futures:
            await settle(future)
            waited += 1
    finally:
        for future in futures[waited:]:
            future.cancel()


_CODES = {
    1007: Code.KV_TOO_OLD,  # transaction_too_old
    1009: Code.KV_UNAVAILABLE,  # future_version
    1020: Code.KV_CONFLICT,  # not_committed
    1021: Code.KV_UNKNOWN_RESULT,  # commit_unknown_result
    1025: Code.INVALID,  # transaction_cancelled: only ever by its owner
    1031: Code.KV_UNAVAILABLE,  # transaction_timed_out
    1032: Code.KV_UNAVAILABLE,  # too_many_watches
    1037: Code.KV_UNAVAILABLE,  # process_behind
    1038: Code.KV_UNAVAILABLE,  # database_locked
    1039: Code.KV_UNAVAILABLE,  # cluster_version_changed
    1101: Code.KV_UNAVAILABLE,  # operation_cancelled: the client is stopping
    2101: Code.KV_LIMIT,  # transaction_too_large
    2102: Code.KV_LIMIT,  # key_too_large
    2103: Code.KV_LIMIT,  # value_too_large
}
_MAYBE_COMMITTED = frozenset((1021, 1031, 1039, 1101))
"""At a commit: it may have happened, or may happen still."""


def failure(binding: Binding, error: FDBError, doing: str, *, committing: bool = False) -> FsError:
    """What an error of the binding means. Codes that are not known here go by the client's own
    judgement: retryable is ``KV_UNAVAILABLE``, the rest a defect of ours (``INTERNAL``)."""
    code = _CODES.get(error.code)
    if committing and (
        error.code in _MAYBE_COMMITTED or binding.predicates.is_maybe_committed(error)
    ):
        code = Code.KV_UNKNOWN_RESULT
    if code is None:
        retry = binding.predicates.is_retryable(error)
        code = Code.KV_UNAVAILABLE if retry else Code.INTERNAL
    said = error.description.decode(errors="replace")
    return FsError(code, f"FoundationDB, {doing}: {said} ({error.code})")


@contextlib.contextmanager
def translated(binding: Binding, doing: str, *, committing: bool = False) -> Iterator[None]:
    """Raises the binding's errors as FsError."""
    try:
        yield
    except binding.FDBError as error:
        known = cast("FDBError", error)
        raise failure(binding, known, doing, committing=committing) from None
