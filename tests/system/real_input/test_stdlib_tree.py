"""The standard library's tree, by the programs that people copy trees with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.system.real_input.programs import differences, inventory, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.system,
    pytest.mark.mount,
    pytest.mark.real_input,
    pytest.mark.timeout(1200),
]


def test_cp_keeps_everything(work: Path, stdlib: Path) -> None:
    run("cp", "-a", stdlib, work / "copy")
    assert not differences(inventory(stdlib), inventory(work / "copy"))
    one, other = work / "copy/os.py", work / "copy/another name of os.py"
    assert one.stat().st_ino == other.stat().st_ino
    assert one.stat().st_nlink == 2


def test_tar_there_and_back(work: Path, stdlib: Path, tmp_path: Path) -> None:
    run("tar", "-C", stdlib, "--format=posix", "-cf", tmp_path / "in.tar", ".")
    (work / "tree").mkdir()
    run("tar", "-C", work / "tree", "-xpf", tmp_path / "in.tar")
    assert not differences(inventory(stdlib), inventory(work / "tree"))
    (tmp_path / "back").mkdir()
    run("tar", "-C", work / "tree", "--format=posix", "-cf", work / "out.tar", ".")
    run("tar", "-C", tmp_path / "back", "-xpf", work / "out.tar")
    assert not differences(inventory(stdlib), inventory(tmp_path / "back"))


def test_rsync_finds_nothing_left_to_do(work: Path, stdlib: Path) -> None:
    run("rsync", "-aH", f"{stdlib}/", work / "copy/")
    again = run("rsync", "-aHc", "--itemize-changes", f"{stdlib}/", work / "copy/")
    assert again.strip() == ""


def test_programs_that_walk(work: Path, stdlib: Path, tmp_path: Path) -> None:
    run("cp", "-a", stdlib, work / "tree")
    run("cp", "-a", stdlib, tmp_path / "tree")
    here, there = work / "tree", tmp_path / "tree"
    for command in (
        ["find", ".", "-printf", "%p %m %n %T@ %l\\n"],
        ["ls", "-lRU", "--time-style=full-iso", "--hide=."],
        ["du", "-a", "--apparent-size", "-b", "--exclude=.", "."],
    ):
        ours, local = run(*command, cwd=here), run(*command, cwd=there)
        assert comparable(ours, command[0]) == comparable(local, command[0])
    assert int(run("du", "-s", "-B1", ".", cwd=here).split()[0]) > 1 << 20


def comparable(output: str, command: str) -> list[str]:
    """Sorted lines, without sizes of directories (each file system has its own idea)."""
    lines = output.splitlines()
    if command == "ls":
        lines = [" ".join(x.split()) for x in lines if not x.startswith(("d", "total "))]
    if command == "du":
        lines = [line for line in lines if line.endswith((".py", ".txt"))]
    return sorted(lines)


def test_compileall(work: Path, stdlib: Path, python: str) -> None:
    run("cp", "-a", stdlib, work / "tree")
    run(python, "-m", "compileall", "-q", "-j", "2", "-x", "bad_|badsyntax|lib2to3", work / "tree")
    compiled = list((work / "tree").rglob("*.pyc"))
    assert len(compiled) > 300
    run(python, "-S", "-c", "import json.decoder", env={"PYTHONPATH": os.fspath(work / "tree")})


def test_rm_rf(work: Path, stdlib: Path) -> None:
    run("cp", "-a", stdlib, work / "tree")
    run("rm", "-rf", work / "tree")
    assert os.listdir(work) == []
    assert work.stat().st_nlink == 2
