from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fireflyfs.errors import Code, FsError
from fuse_client import mountpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/fuse for checks only."""
    path = tmp_path / "fuse"
    path.touch()
    monkeypatch.setattr(mountpoint, "DEVICE", path)
    return path


def test_an_empty_directory_will_do(device: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    assert mountpoint.check(str(place)) == place
    assert mountpoint.check(str(tmp_path / "link")) == place


@pytest.mark.parametrize(
    ("name", "saying"),
    [("none", "is not there"), ("fuse", "is not a directory"), ("", "not empty")],
)
def test_other_places_are_refused(device: Path, tmp_path: Path, name: str, saying: str) -> None:
    with pytest.raises(FsError, match=saying) as caught:
        mountpoint.check(str(tmp_path / name))
    assert caught.value.code is Code.CONFIG


def test_a_place_in_use_is_refused(device: Path) -> None:
    with pytest.raises(FsError, match="in use"):
        mountpoint.check("/proc")


def test_a_machine_without_fuse_is_told_so(device: Path, tmp_path: Path) -> None:
    device.unlink()
    with pytest.raises(FsError, match="modprobe fuse"):
        mountpoint.check(str(tmp_path))


def test_others_are_let_in_by_root_or_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "fuse.conf"
    monkeypatch.setattr(mountpoint, "USER_CONFIG", config)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "allow_other" not in mountpoint.options(False)
    with pytest.raises(FsError, match="user_allow_other"):
        mountpoint.options(True)
    config.write_text("# comment\nuser_allow_other\n")
    assert "allow_other" in mountpoint.options(True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "allow_other" in mountpoint.options(False)
