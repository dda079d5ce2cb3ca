"""git on the mount: many small files, renames over lock files, packs by mmap."""

from __future__ import annotations

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

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(repository: Path, *arguments: str | Path) -> str:
    return run("git", "-C", repository, *arguments, env=IDENTITY)


def test_a_life_of_a_repository(work: Path, stdlib: Path) -> None:
    repository, clone = work / "repository", work / "clone"
    run("cp", "-a", stdlib, repository)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "the standard library")
    git(repository, "mv", "json", "jason")
    git(repository, "commit", "-q", "-am", "rename a package")
    git(repository, "gc", "-q", "--prune=now")
    git(repository, "fsck", "--strict", "--no-progress")
    assert git(repository, "status", "--porcelain") == ""
    run("git", "clone", "-q", "--no-hardlinks", repository, clone, env=IDENTITY)
    git(clone, "fsck", "--strict", "--no-progress")
    ours = inventory(repository / "jason", times=False)
    assert ours
    assert not differences(ours, inventory(clone / "jason", times=False))
