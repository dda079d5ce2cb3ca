"""Random transactions against a model that is a dict: what each read, in the order of commits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.kv.atomic import added, raised

if TYPE_CHECKING:
    import random

    from fireflyfs.kv.base import Engine, Transaction

Model = dict[bytes, bytes]
Call = tuple[str, tuple[object, ...]]


def random_key(rng: random.Random) -> bytes:
    return bytes(rng.choices(b"ab\x00\xfe", k=rng.randint(1, 3)))


def random_call(rng: random.Random) -> Call:
    key, other = sorted((random_key(rng), random_key(rng)))
    kind = rng.choice(
        ("get", "get", "range", "range", "set", "set", "clear", "clear_range", "step")
    )
    match kind:
        case "range":
            return kind, (key, other, rng.choice((0, 0, 1, 2, 5)), rng.random() < 0.5)
        case "set":
            return kind, (key, rng.randbytes(rng.randint(0, 9)))
        case "clear_range":
            return kind, (key, other)
        case "step":
            return rng.choice(("add", "maximum")), (key, rng.randrange(1 << 20))
    return kind, (key,)


async def call_store(tr: Transaction, call: Call) -> object:
    match call:
        case "get", (bytes(key),):
            return await tr.get(key)
        case "range", (bytes(begin), bytes(end), int(limit), bool(reverse)):
            return await tr.get_range(begin, end, limit=limit, reverse=reverse)
        case "set", (bytes(key), bytes(value)):
            tr.set(key, value)
        case "clear", (bytes(key),):
            tr.clear(key)
        case "clear_range", (bytes(begin), bytes(end)):
            tr.clear_range(begin, end)
        case "add", (bytes(key), int(operand)):
            tr.add(key, operand)
        case "maximum", (bytes(key), int(operand)):
            tr.maximum(key, operand)
        case _:
            raise AssertionError(call)
    return None


def call_model(model: Model, call: Call) -> object:
    match call:
        case "get", (bytes(key),):
            return model.get(key)
        case "range", (bytes(begin), bytes(end), int(limit), bool(reverse)):
            pairs = sorted((p for p in model.items() if begin <= p[0] < end), reverse=reverse)
            return pairs[:limit] if limit else pairs
        case "set", (bytes(key), bytes(value)):
            model[key] = value
        case "clear", (bytes(key),):
            model.pop(key, None)
        case "clear_range", (bytes(begin), bytes(end)):
            for key in [key for key in model if begin <= key < end]:
                del model[key]
        case "add", (bytes(key), int(operand)):
            model[key] = added(model.get(key), operand)
        case "maximum", (bytes(key), int(operand)):
            model[key] = raised(model.get(key), operand)
        case _:
            raise AssertionError(call)
    return None


@dataclass
class History:
    """One transaction: its calls with their results, and the version that it was committed at."""

    tr: Transaction
    calls: list[tuple[Call, object]] = field(default_factory=list)
    version: int = 0
    writes: bool = False


async def run_interleaved(engine: Engine, rng: random.Random, transactions: int) -> list[History]:
    """Up to four transactions at a time take turns; those that were committed."""
    running: list[History] = []
    committed: list[History] = []
    while transactions or running:
        if transactions and len(running) < 4:
            running.append(History(engine.transaction()))
            transactions -= 1
        history = rng.choice(running)
        if rng.random() < 0.8:
            call = random_call(rng)
            history.calls.append((call, await call_store(history.tr, call)))
            history.writes |= call[0] not in ("get", "range")
            continue
        running.remove(history)
        if rng.random() < 0.1:
            history.tr.cancel()
            continue
        try:
            history.version = await history.tr.commit()
            committed.append(history)
        except FsError as error:
            if error.code is not Code.KV_CONFLICT:
                raise
    return committed


def replay(committed: list[History]) -> Model:
    """Run the transactions one after another by commit version; every read must come out the same.

    One that wrote nothing stands behind the commit of the version that it read.
    """
    model: Model = {}
    for history in sorted(committed, key=lambda h: (h.version, not h.writes)):
        for call, result in history.calls:
            assert call_model(model, call) == result, (history.version, call)
    return model
