from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireflyfs import config
from fireflyfs.config import ClusterConfig, MountConfig, StorageConfig
from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = """
cluster_id = "c"
secret_file = "/s"
kv = "embedded:/kv"
managers = ["tcp://127.0.0.1:1"]
"""


def load(path: Path, text: str) -> ClusterConfig:
    path.write_text(text)
    return config.load(path, ClusterConfig)


def test_a_file_is_read_and_defaults_filled(tmp_path: Path) -> None:
    loaded = load(tmp_path / "c.toml", CLUSTER + "replicas = 2")
    assert loaded == ClusterConfig(
        "c", "/s", "embedded:/kv", ("tcp://127.0.0.1:1",), 1 << 20, replicas=2
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CLUSTER + "colour = 1", "unknown key colour"),
        ("kv = 'x'", "missing key cluster_id"),
        (CLUSTER + "replicas = '2'", "replicas must be of type int, not str"),
        (CLUSTER + "replicas = true", "replicas must be of type int, not bool"),
        (CLUSTER + "replicas = 9", "replicas must be 1 to 5, not 9"),
        (CLUSTER + "chunk_size = 100000", "chunk_size must be a power of two"),
        (CLUSTER.replace('["tcp://127.0.0.1:1"]', "[]"), "managers"),
        (CLUSTER.replace('["tcp://127.0.0.1:1"]', "[1]"), r"managers\[0\]"),
        (CLUSTER.replace('["tcp://127.0.0.1:1"]', "'x'"), "managers must be a list"),
        ("= nonsense", "not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_file_and_key(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(FsError, match=words) as caught:
        load(path, text)
    assert caught.value.code is Code.CONFIG
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_nested_tables_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("name='a'\nlisten=[]\ndirectory='/d'\n[cluster]\n" + CLUSTER + "odd = 1")
    with pytest.raises(FsError, match=r"unknown key cluster\.odd"):
        config.load(path, StorageConfig)
    path.write_text("name='a'\nlisten=[]\ndirectory='/d'\ncluster = 5")
    with pytest.raises(FsError, match="cluster must be a table"):
        config.load(path, StorageConfig)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FsError, match=r"gone\.toml: No such file"):
        config.load(tmp_path / "gone.toml", ClusterConfig)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FsError, match=r"binary\.toml: not TOML"):
        config.load(tmp_path / "binary.toml", ClusterConfig)


@given(text=st.text(), log_file=st.none() | st.text(), flag=st.booleans())
def test_what_is_dumped_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, text: str, log_file: str | None, flag: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.toml"
    cluster = ClusterConfig(text, text, "kv", (text, "b"))
    made = MountConfig(cluster, text, log_file, flag)
    path.write_text(config.dump(made), encoding="utf-8")
    assert config.load(path, MountConfig) == made
    assert dataclasses.is_dataclass(made)
