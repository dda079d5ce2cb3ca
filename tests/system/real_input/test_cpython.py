"""CPython's own tests of files, with their temporary directory on the mount."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.system.real_input.programs import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.mount, pytest.mark.real_input]

MODULES = [
    "test_os",
    "test_posix",
    "test_shutil",
    "test_tempfile",
    "test_pathlib",
    "test_glob",
    "test_mmap",
    "test_tarfile",
    "test_zipfile",
    "test_fileio",
    "test_largefile",
    "test_dbm_dumb",
    "test_sqlite3",
]

EXPECTED_FAILURES: dict[str, str] = {}
"""Test name (as unittest's -i takes it) -> why it cannot pass on this file system."""


@pytest.mark.skipif(
    importlib.util.find_spec("test.support") is None,
    reason="this Python was installed without its own tests (Debian: libpython3-testsuite)",
)
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("module", MODULES)
def test_cpython_module(work: Path, python: str, module: str) -> None:
    ignored = [part for name in EXPECTED_FAILURES for part in ("-i", name)]
    out = run(
        *(python, "-m", "test", "--tempdir", str(work), "-u", "largefile", *ignored, module),
        cwd=work,
        env={"TMPDIR": str(work), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=1400,
    )
    assert "Result: SUCCESS" in out or "All 1 tests OK" in out or "1 test OK" in out, out[-2000:]
