"""The committed messages are what ``proto/`` says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

protoc = pytest.importorskip("grpc_tools.protoc")

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*.proto"))


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_generated_code_is_fresh(tmp_path: Path, source: Path) -> None:
    """If this fails: python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. FILE"""
    arguments = [f"-I{ROOT / 'proto'}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    assert protoc.main(["protoc", *arguments, str(ROOT / "proto" / source)]) == 0
    made = source.with_name(source.stem + "_pb2.py")
    assert descriptor(ROOT / made) == descriptor(tmp_path / made)
    stub = made.with_suffix(".pyi")
    assert (ROOT / stub).read_text() == (tmp_path / stub).read_text()


def descriptor(path: Path) -> bytes:
    """The serialized file descriptor: all that matters, whatever the compiler's release."""
    constants = [
        n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)
    ]
    return max((value for value in constants if isinstance(value, bytes)), key=len)
