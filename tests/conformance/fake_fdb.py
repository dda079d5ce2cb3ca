"""FoundationDB's native client in Python, for its official binding to run on: a fake at the lowest
level there is, so that the binding itself (the package ``foundationdb``) is the real one.

``load`` gives a copy of the binding of its own, whose ``ctypes`` library is a ``FakeClient``. The
number and order of arguments are checked against what the binding declares (``init_c_api``).
Futures become ready on the binding's network thread. Versions, conflicts, limits, unreadable
ranges, batches of range reads and error codes are those of API version 730.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import queue
import sys
from typing import TYPE_CHECKING, Any

from tests.conformance.fake_fdb_store import Cluster, FdbFailure, FdbTransaction

if TYPE_CHECKING:
    from collections.abc import Callable

_ERRORS = {
    1007: b"Transaction is too old to perform reads or be committed",
    1020: b"Transaction not committed due to conflict with another transaction",
    1021: b"Transaction may or may not have committed",
    1031: b"Operation aborted because the transaction timed out",
}
_RETRYABLE_NOT_COMMITTED = {1007, 1009, 1020, 1037, 1038, 1042, 1051, 1078, 1213, 1223}
_MAYBE_COMMITTED = {1021, 1039}


class FakeFuture:
    """Set once, in the network thread."""

    def __init__(self) -> None:
        self.ready = False
        self.code = 0
        self.value: Any = None
        self.callback: Callable[[Any], None] | None = None
        self.kept: list[Any] = []
        """Memory that was handed out; it lives as long as the future."""

    def set(self, code: int, value: object = None) -> None:
        if self.ready:
            return
        self.code, self.value = code, value
        self.ready = True
        if self.callback is not None:
            self.callback(None)

    def result(self) -> Any:
        if not self.ready:
            raise FdbFailure(2012)  # future_not_set: the binding would have had to wait
        if self.code:
            raise FdbFailure(self.code)
        return self.value


class _Function:
    """A function of the library as ctypes shows it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.argtypes: list[Any] | None = None
        self.restype: Any = None
        self.errcheck: Callable[[Any, Any, Any], Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self.argtypes is not None and len(arguments) != len(self.argtypes):
            raise TypeError(f"{self.function.__name__} takes {len(self.argtypes)} arguments")
        try:
            result = self.function(*map(_plain, arguments))
        except FdbFailure as failure:
            result = failure.code
        return self.errcheck(result, self, arguments) if self.errcheck else result


def _plain(argument: Any) -> Any:
    return argument.value if isinstance(argument, ctypes.c_void_p) else argument


class FakeClient:
    """``libfdb_c.so``; clusters by the path of their file."""

    def __init__(self) -> None:
        self.clusters: dict[bytes, Cluster] = {}
        self._functions: dict[str, _Function] = {}
        self._objects: dict[int, Any] = {}
        self._handles = 0
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def __getattr__(self, name: str) -> _Function:
        if not name.startswith("fdb_"):
            raise AttributeError(name)
        found = self._functions.get(name)
        if found is None:
            function = getattr(type(self), f"_{name}", None)
            bound = functools.partial(function, self) if function else _missing(name)
            bound.__name__ = name
            found = self._functions[name] = _Function(bound)
        return found

    def _new(self, thing: object) -> int:
        self._handles += 8
        self._objects[self._handles] = thing
        return self._handles

    def _later(self, tr: FdbTransaction, step: Callable[[], Any]) -> int:
        """A future of what ``step`` gives in the network thread."""
        future = FakeFuture()

        def run() -> None:
            if tr.cluster.is_down and not future.ready:
                if tr.timeout:
                    future.set(1031)
                return
            try:
                value = step()
            except FdbFailure as failure:
                future.set(failure.code)
            else:
                future.set(0, value)

        self._work.put(run)
        return self._new(future)

    # The process and its network.

    def _fdb_select_api_version_impl(self, version: int, header: int) -> int:
        return 0 if version == header == 730 else 2203

    def _fdb_get_error(self, code: int) -> bytes:
        return _ERRORS.get(code, b"error of the fake")

    def _fdb_error_predicate(self, predicate: int, code: int) -> int:
        maybe, certain = code in _MAYBE_COMMITTED, code in _RETRYABLE_NOT_COMMITTED
        return int({50000: maybe or certain, 50001: maybe, 50002: certain}[predicate])

    def _fdb_setup_network(self) -> int:
        return 0

    def _fdb_run_network(self) -> int:
        while (work := self._work.get()) is not None:
            work()
        return 0

    def _fdb_stop_network(self) -> int:
        self._work.put(None)
        return 0

    # Futures.

    def _fdb_future_destroy(self, handle: int) -> None:
        del self._objects[handle]

    def _fdb_future_release_memory(self, handle: int) -> None:
        self._objects[handle].kept.clear()

    def _fdb_future_cancel(self, handle: int) -> None:
        future: FakeFuture = self._objects[handle]
        self._work.put(lambda: future.set(1101))

    def _fdb_future_is_ready(self, handle: int) -> int:
        return int(self._objects[handle].ready)

    def _fdb_future_set_callback(self, handle: int, callback: Any, argument: object) -> int:
        future: FakeFuture = self._objects[handle]

        def settled() -> None:  # in the network thread, so that no readiness is missed
            if future.ready:
                callback(argument)
            else:
                future.callback = callback

        self._work.put(settled)
        return 0

    def _fdb_future_get_error(self, handle: int) -> int:
        self._objects[handle].result()
        return 0

    def _fdb_future_get_int64(self, handle: int, out: Any) -> int:
        out._obj.value = self._objects[handle].result()
        return 0

    def _fdb_future_get_value(self, handle: int, present: Any, value: Any, length: Any) -> int:
        future: FakeFuture = self._objects[handle]
        found: bytes | None = future.result()
        present._obj.value = int(found is not None)
        if found is not None:
            value._obj.contents = self._lend(future, found).contents
            length._obj.value = len(found)
        return 0

    def _fdb_future_get_keyvalue_array(self, handle: int, out: Any, count: Any, more: Any) -> int:
        future: FakeFuture = self._objects[handle]
        pairs, rest = future.result()
        struct = type(out._obj.contents)
        array = (struct * max(1, len(pairs)))()
        for item, (key, value) in zip(array, pairs, strict=False):
            item.key, item.key_length = self._lend(future, key), len(key)
            item.value, item.value_length = self._lend(future, value), len(value)
        future.kept.append(array)
        out._obj.contents = ctypes.cast(array, ctypes.POINTER(struct)).contents
        count._obj.value, more._obj.value = len(pairs), int(rest)
        return 0

    @staticmethod
    def _lend(future: FakeFuture, data: bytes) -> Any:
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        future.kept.append(buffer)
        return ctypes.cast(buffer, ctypes.POINTER(ctypes.c_byte))

    # Databases.

    def _fdb_create_database(self, cluster_file: bytes, out: Any) -> int:
        with open(cluster_file, "rb") as file:
            if b"@" not in file.read():
                raise FdbFailure(2104)  # connection_string_invalid
        out._obj.value = self._new(self.clusters.setdefault(cluster_file, Cluster()))
        return 0

    def _fdb_database_destroy(self, handle: int) -> None:
        del self._objects[handle]

    def _fdb_database_set_option(self, handle: int, option: int, value: bytes, size: int) -> int:
        assert (option, size) == (500, 8)
        self._objects[handle].timeout = int.from_bytes(value, "little")
        return 0

    def _fdb_database_create_transaction(self, handle: int, out: Any) -> int:
        cluster: Cluster = self._objects[handle]
        out._obj.value = self._new(FdbTransaction(cluster))
        return 0

    # Transactions.

    def _fdb_transaction_destroy(self, handle: int) -> None:
        del self._objects[handle]

    def _fdb_transaction_cancel(self, handle: int) -> None:
        tr: FdbTransaction = self._objects[handle]
        self._work.put(tr.cancel)

    def _fdb_transaction_set_option(self, handle: int, option: int, value: bytes, n: int) -> int:
        assert (option, n) == (500, 8)
        self._objects[handle].timeout = int.from_bytes(value, "little")
        return 0

    def _fdb_transaction_get_read_version(self, handle: int) -> int:
        tr: FdbTransaction = self._objects[handle]
        now = tr.cluster.clock()
        return self._later(tr, lambda: tr.begin(now))

    def _fdb_transaction_get(self, handle: int, key: bytes, size: int, snapshot: int) -> int:
        assert size == len(key)
        tr: FdbTransaction = self._objects[handle]
        now = tr.cluster.clock()
        return self._later(tr, lambda: tr.get(key, bool(snapshot), now))

    def _fdb_transaction_get_range(self, handle: int, *rest: Any) -> int:
        begin, begin_size, begin_equal, begin_offset, end, end_size, end_equal, end_offset = rest[
            :8
        ]
        limit, target_bytes, mode, iteration, snapshot, reverse = rest[8:]
        assert (begin_size, end_size) == (len(begin), len(end))
        assert begin_offset == end_offset == 1
        assert target_bytes == 0
        assert iteration >= 1
        tr: FdbTransaction = self._objects[handle]
        now = tr.cluster.clock()
        low = begin + b"\x00" if begin_equal else begin
        high = end + b"\x00" if end_equal else end
        return self._later(
            tr, lambda: tr.get_range(low, high, limit, mode, bool(snapshot), bool(reverse), now)
        )

    def _fdb_transaction_set(self, handle: int, key: bytes, n: int, value: bytes, m: int) -> None:
        assert (n, m) == (len(key), len(value))
        self._write(handle, "set", key, value)

    def _fdb_transaction_clear(self, handle: int, key: bytes, size: int) -> None:
        assert size == len(key)
        self._write(handle, "clear_range", key, key + b"\x00")

    def _fdb_transaction_clear_range(
        self, handle: int, begin: bytes, n: int, end: bytes, m: int
    ) -> None:
        assert (n, m) == (len(begin), len(end))
        self._write(handle, "clear_range", begin, end)

    def _fdb_transaction_atomic_op(
        self, handle: int, key: bytes, n: int, param: bytes, m: int, operation: int
    ) -> None:
        assert (n, m) == (len(key), len(param))
        self._write(handle, {2: "add", 12: "max", 14: "stamp"}[operation], key, param)

    def _write(self, handle: int, kind: str, key: bytes, param: bytes) -> None:
        tr: FdbTransaction = self._objects[handle]
        self._work.put(lambda: tr.write(kind, key, param))

    def _fdb_transaction_add_conflict_range(
        self, handle: int, begin: bytes, n: int, end: bytes, m: int, kind: int
    ) -> int:
        assert (n, m) == (len(begin), len(end))
        if begin > end:
            raise FdbFailure(2005)  # inverted_range
        tr: FdbTransaction = self._objects[handle]
        ranges = (tr.reads, tr.extra_writes)[kind]
        self._work.put(lambda: ranges.append((begin, end)))
        return 0

    def _fdb_transaction_watch(self, handle: int, key: bytes, size: int) -> int:
        assert size == len(key)
        tr: FdbTransaction = self._objects[handle]
        now = tr.cluster.clock()
        future = FakeFuture()
        self._work.put(lambda: tr.watch(key, now, future.set))
        return self._new(future)

    def _fdb_transaction_commit(self, handle: int) -> int:
        tr: FdbTransaction = self._objects[handle]
        now = tr.cluster.clock()
        return self._later(tr, lambda: tr.commit(now))

    def _fdb_transaction_get_committed_version(self, handle: int, out: Any) -> int:
        out._obj.value = self._objects[handle].committed_version
        return 0


def _missing(name: str) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        raise AssertionError(f"the fake has no {name}")

    return functools.partial(call)


@functools.cache
def load() -> tuple[Any, FakeClient]:
    """The binding on the fake, apart from the ``fdb`` that others may import.

    Raises ImportError when the package is not installed.
    """
    client = FakeClient()
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_fdb(name)}
    cdll = ctypes.CDLL
    try:
        binding = importlib.import_module("fdb")
        ctypes.CDLL = lambda *_: client  # type: ignore[misc,assignment]
        binding.api_version(730)
    finally:
        ctypes.CDLL = cdll  # type: ignore[misc]
        for name in [name for name in sys.modules if _is_fdb(name)]:
            del sys.modules[name]
        sys.modules.update(real)
    return binding, client


def _is_fdb(name: str) -> bool:
    return name.partition(".")[0] == "fdb"
