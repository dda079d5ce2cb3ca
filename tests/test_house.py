"""The rules of the house (CONTRIBUTING.md) that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "chain_replication",
    "fireflyfs",
    "fuse_client",
    "kvcache_client",
    "meta_service",
    "storage_service",
)
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}

BROAD = {"Exception", "BaseException"}

DOORS = {
    "msgpack": ("fireflyfs/net/codec.py", "meta_service/"),
    "pyverbs": ("fireflyfs/net/rdma.py",),
    "fdb": ("fireflyfs/kv/",),
    "grpc": ("fireflyfs/rpc/",),
    "grpc_health": ("fireflyfs/rpc/",),
    "grpc_reflection": ("fireflyfs/rpc/",),
    "pyfuse3": ("fuse_client/",),
    "apsw": ("fireflyfs/kv/embedded",),
    "rocksdict": ("storage_service/store/",),
    "crc32c": ("fireflyfs/checksum.py",),
}
"""The only places that may import a third party: each can be replaced in one place."""


@cache
def sources() -> dict[str, ast.Module]:
    """Every module that people wrote, by path from the root."""
    return {path: ast.parse((ROOT / path).read_text()) for path in written()}


@cache
def written() -> tuple[str, ...]:
    paths = (p.relative_to(ROOT) for top in PACKAGES for p in (ROOT / top).rglob("*.py"))
    return tuple(sorted(str(p) for p in paths if not re.search(r"_pb2(_grpc)?\.py$", p.name)))


@cache
def trees_of_tests() -> dict[str, ast.Module]:
    paths = (str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*.py"))
    return {path: ast.parse((ROOT / path).read_text()) for path in paths}


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Absolute names of imported modules, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, node.lineno


def test_files_are_short() -> None:
    paths = [*sources(), *trees_of_tests()]
    long = {p: n for p in paths if (n := len((ROOT / p).read_text().splitlines())) > MAX_FILE_LINES}
    assert not long


def test_functions_are_short() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path, tree in {**sources(), **trees_of_tests()}.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


def test_modules_say_what_they_are_for() -> None:
    vague = [
        p for p in sources() if VAGUE_NAMES & {part.removesuffix(".py") for part in Path(p).parts}
    ]
    mute = [p for p, tree in sources().items() if tree.body and ast.get_docstring(tree) is None]
    assert not vague
    assert not mute


@pytest.mark.parametrize("party", sorted(DOORS))
def test_third_parties_have_one_door(party: str) -> None:
    strangers = [
        f"{path}:{line}"
        for path, tree in sources().items()
        for name, line in imported(tree)
        if name.partition(".")[0] == party and not path.startswith(DOORS[party])
    ]
    assert not strangers


def test_no_error_is_swallowed_whole() -> None:
    swallowed = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in BROAD))
        and all(isinstance(statement, ast.Pass) for statement in node.body)
    ]
    assert not swallowed


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    left = [
        f"{path}:{number}"
        for path in sources()
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not left


def test_only_the_command_line_knows_its_siblings() -> None:
    """The common ground imports no package above it, but for the entry points of fireflyfs/cli."""
    siblings = set(PACKAGES) - {"fireflyfs"}
    upward = [
        f"{path}:{line} {name}"
        for path, tree in sources().items()
        if path.startswith("fireflyfs/")
        for name, line in imported(tree)
        if name.partition(".")[0] in siblings and not path.startswith("fireflyfs/cli/")
    ]
    assert not upward


def test_entry_points_are_lazy() -> None:
    """``fireflyfs --help`` must not load four servers."""
    siblings = set(PACKAGES) - {"fireflyfs"}
    eager = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        if path.startswith("fireflyfs/")
        for node in tree.body
        for name, _ in imported(ast.Module([node], []))
        if isinstance(node, ast.Import | ast.ImportFrom) and name.partition(".")[0] in siblings
    ]
    assert not eager


def test_proto_is_no_package() -> None:
    """Installed, it would shadow a package of that name that many environments carry."""
    assert not list((ROOT / "proto").rglob("__init__.py"))


def test_packages_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = {
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    there = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert listed == there == set(PACKAGES)


def test_every_package_directory_is_one() -> None:
    """Without __init__.py a directory is installed as a namespace, or not at all."""
    bare = {
        str(path.parent)
        for path in map(Path, written())
        if not (ROOT / path.parent / "__init__.py").exists()
    }
    assert not bare


def test_commands_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    scripts = set(re.findall(r"bash (deploy/[\w./-]+)", text))
    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]
    verbs = set(re.findall(r"^\s*fireflyfs ([a-z]+)", text, re.MULTILINE))
    assert verbs
    for verb in sorted(verbs):
        done = subprocess.run(
            [sys.executable, "-m", "fireflyfs.cli", verb, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"fireflyfs {verb}: {done.stderr}"


def test_storeys_hold() -> None:
    """import-linter's contracts in pyproject.toml."""
    program = (
        "import sys; from importlinter.cli import lint_imports as l; sys.exit(l(no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_of_the_protocol_is_held_to_purity() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    pure = next(c for c in contracts if c["name"] == "the protocol is pure")
    there = {f"chain_replication.{p.stem}" for p in (ROOT / "chain_replication").glob("*.py")}
    assert set(pure["source_modules"]) == there - {"chain_replication.__init__"}
