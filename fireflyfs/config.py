"""Configuration files: TOML into frozen dataclasses, strictly.

An unknown key, a missing one, a wrong type: FsError(CONFIG) in one line that names file and key.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fireflyfs import limits
from fireflyfs.errors import Code, FsError

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterConfig:
    """What every process and client of a cluster must know."""

    cluster_id: str
    secret_file: str
    kv: str
    """Where metadata and membership live: ``embedded:/directory`` or ``memory:``."""
    managers: tuple[str, ...]
    """Addresses of the cluster manager, best first."""
    chunk_size: int = limits.DEFAULT_CHUNK_SIZE
    replicas: int = 3

    def __post_init__(self) -> None:
        size = self.chunk_size
        if not limits.MIN_CHUNK_SIZE <= size <= limits.MAX_CHUNK_SIZE or size & (size - 1):
            raise FsError(
                Code.CONFIG,
                f"chunk_size must be a power of two from {limits.MIN_CHUNK_SIZE} "
                f"to {limits.MAX_CHUNK_SIZE}, not {size}",
            )
        if not 1 <= self.replicas <= limits.MAX_REPLICAS:
            raise FsError(
                Code.CONFIG, f"replicas must be 1 to {limits.MAX_REPLICAS}, not {self.replicas}"
            )
        if not self.managers:
            raise FsError(Code.CONFIG, "managers must name at least one address")


@dataclass(frozen=True)
class ManagerConfig:
    cluster: ClusterConfig
    listen: tuple[str, ...]
    grpc: str
    """``HOST:PORT``; port 0 takes any."""
    log_file: str | None = None


@dataclass(frozen=True)
class MetaConfig:
    cluster: ClusterConfig
    name: str
    listen: tuple[str, ...]
    grpc: str
    log_file: str | None = None


@dataclass(frozen=True)
class StorageConfig:
    cluster: ClusterConfig
    name: str
    listen: tuple[str, ...]
    directory: str
    targets: int = 3
    log_file: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.targets <= 65536:
            raise FsError(Code.CONFIG, f"targets must be 1 to 65536, not {self.targets}")


@dataclass(frozen=True)
class MountConfig:
    cluster: ClusterConfig
    mountpoint: str
    log_file: str | None = None
    allow_other: bool = False


def load(path: str | Path, cls: type[T]) -> T:
    """Read a configuration file. Raises FsError(CONFIG)."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FsError(Code.CONFIG, f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FsError(Code.CONFIG, f"{path}: not TOML: {error}") from None
    try:
        return _table(cls, data, "")
    except FsError as error:
        raise FsError(Code.CONFIG, f"{path}: {error.message}") from None


def dump(config: object) -> str:
    """The TOML text that ``load`` reads back; fields that are None are left out."""
    return "\n".join(_dump_table(config, ())) + "\n"


def _table(cls: type[T], data: dict[str, object], where: str) -> T:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast("typing.Any", cls))}
    for key in data:
        if key not in fields:
            raise FsError(Code.CONFIG, f"unknown key {where}{key}")
    values: dict[str, object] = {}
    for name, entry in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], where + name)
        elif entry.default is dataclasses.MISSING:
            raise FsError(Code.CONFIG, f"missing key {where}{name}")
    try:
        return cls(**values)
    except FsError as error:
        raise FsError(Code.CONFIG, f"{where}{error.message}") from None


def _value(kind: typing.Any, value: object, key: str) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise FsError(Code.CONFIG, f"{key} must be a table")
        return _table(kind, value, key + ".")
    if typing.get_origin(kind) is types.UnionType:
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise FsError(Code.CONFIG, f"{key} must be a list")
        item = typing.get_args(kind)[0]
        return tuple(_value(item, v, f"{key}[{i}]") for i, v in enumerate(value))
    if type(value) is not kind:  # exactly: True is not a number here
        raise FsError(
            Code.CONFIG, f"{key} must be of type {kind.__name__}, not {type(value).__name__}"
        )
    return value


def _dump_table(config: typing.Any, path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(path)}]"] if path else []
    tables: list[str] = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            tables += ["", *_dump_table(value, (*path, entry.name))]
        elif value is not None:
            lines.append(f"{entry.name} = {_dump_value(value)}")
    return lines + tables


def _dump_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_dump_value(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_escaped(c) for c in value) + '"'
    return str(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
