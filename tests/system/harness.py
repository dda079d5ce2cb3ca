"""A real cluster for a test: real processes, a real mount, killed and started at will.

It drives ``fireflyfs`` as a user does, and leaves nothing running or mounted, whatever happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from fireflyfs import config
from fireflyfs.config import ClusterConfig
from fireflyfs.kv import moving
from fireflyfs.kv.open import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

CLUSTERS_FILE = "FIREFLYFS_TEST_CLUSTERS"
"""Environment variable: a file to list the directories of clusters in, for who cleans up after."""
FDB_CLUSTER = os.environ.get("FIREFLYFS_FDB_CLUSTER", "")
"""A cluster file of FoundationDB: every cluster of a test keeps its namespace there."""
TAIL_LINES = 15


def fireflyfs(*words: str | Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run the command line; the result says how that went."""
    return subprocess.run(
        [sys.executable, "-m", "fireflyfs.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def done(*words: str | Path, timeout: float = 180) -> str:
    """Run the command line, which must succeed; its standard output."""
    result = fireflyfs(*words, timeout=timeout)
    assert result.returncode == 0, f"fireflyfs {words}: {result.stdout}{result.stderr}"
    return result.stdout


class TestCluster:
    """A cluster in ``directory``, mounted on ``mountpoint``; a context manager."""

    __test__ = False

    def __init__(self, directory: Path, *options: str) -> None:
        """``options`` are of ``fireflyfs up``: ``"--nodes", "2"``."""
        self.directory = directory.resolve()
        self.mountpoint = self.directory / "mnt"
        store = ("--kv", f"fdb:{Path(FDB_CLUSTER).absolute()}") if FDB_CLUSTER else ()
        self._options = (*(() if "--kv" in options else store), *options)

    def __enter__(self) -> TestCluster:
        listed = os.environ.get(CLUSTERS_FILE)
        if listed:
            with open(listed, "a") as file:
                file.write(f"{self.directory}\n")
        try:
            self.up()
        except BaseException:
            self._end(failed=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(failed=kind is not None)

    def up(self) -> dict[str, Any]:
        """Start what does not run; what ``up --json`` printed."""
        text = done("up", "--dir", self.directory, "--json", *self._options)
        answer: dict[str, Any] = json.loads(text)
        assert answer["state"] == "up"
        return answer

    def down(self) -> None:
        done("down", "--dir", self.directory)

    def status(self) -> dict[str, Any]:
        """What ``status --json`` prints, also of a cluster that is down."""
        answer: dict[str, Any] = json.loads(
            fireflyfs("status", "--dir", self.directory, "--json").stdout
        )
        return answer

    def pids(self) -> dict[str, int]:
        """Of every process that lives, by name: ``supervisor``, ``storage-1``, ``mount``."""
        found: dict[str, int] = {}
        for file in (self.directory / "run").glob("*.json"):
            record = json.loads(file.read_text())
            if is_of(record["pid"], self.directory):
                found[record["name"]] = record["pid"]
        return found

    def kill9(self, name: str) -> int:
        """Kill a process, once there is one; returns its pid."""
        until(lambda: name in self.pids(), f"there is a process {name}", 30)
        pid = self.pids()[name]
        kill_and_wait(pid)
        return pid

    def kill9_all(self) -> None:
        """All at once, the supervisor first, so that it restarts nothing."""
        pids = self.pids()
        order = sorted(pids, key=lambda name: name != "supervisor")
        for name in order:
            os.kill(pids[name], signal.SIGKILL)
        until(lambda: not processes_of(self.directory), "all are dead", 30)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """The process is dead, and stays dead, until the block ends."""
        config = self.directory / "config" / f"{name}.toml"
        hidden = config.rename(config.with_suffix(".hidden"))
        self.kill9(name)
        try:
            yield
        finally:
            hidden.rename(config)

    def wait_full(self, seconds: float = 120) -> None:
        """Until every replica of every chain serves and the mount answers."""
        deadline = time.monotonic() + seconds
        while (status := self.status())["state"] != "up":
            assert time.monotonic() < deadline, f"not whole: waits for {status['waits_for']}"
            time.sleep(0.2)

    def remount(self) -> None:
        """Unmount and mount again: every cache of the client and of the kernel is cold."""
        done("umount", self.mountpoint)
        done("mount", self.directory, self.mountpoint)

    def mount_again(self, point: Path) -> Path:
        """One more mount, made for it; it ends with the cluster."""
        point.mkdir(parents=True, exist_ok=True)
        done("mount", self.directory, point)
        return point

    def _end(self, *, failed: bool) -> None:
        if failed:
            print(self.tails())
        try:
            if (self.directory / "config" / "host.toml").exists():
                stopped = fireflyfs("down", "--dir", self.directory)
                assert stopped.returncode == 0, stopped.stderr
            left = processes_of(self.directory)
            assert not left, f"still running: {left}"
            assert not mounts_below(self.directory)
        finally:
            self._force()
            self._clear_store()
        if not failed:  # gigabytes, sometimes: only what failed is worth keeping
            shutil.rmtree(self.directory)

    def _clear_store(self) -> None:
        file = self.directory / "config" / "cluster.toml"
        if file.exists() and (kv := config.load(file, ClusterConfig).kv).startswith("fdb:"):
            trio.run(_clear, kv)

    def _force(self) -> None:
        for pid in processes_of(self.directory):
            kill_and_wait(pid)
        for point in mounts_below(self.directory):
            subprocess.run(["fusermount3", "-uz", point], check=False)

    def tails(self) -> str:
        """The last lines of every log."""
        parts = []
        for log in sorted((self.directory / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            parts.append("\n".join((f"--- {log.name}", *lines)))
        return "\n".join(parts)


async def _clear(kv: str) -> None:
    engine = await open_engine(kv)
    await moving.clear(engine)
    await engine.close()


def is_of(pid: int, directory: Path) -> bool:
    """The process lives and names something in ``directory`` on its command line."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(directory) + b"/config/" in command


def processes_of(directory: Path) -> list[int]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if is_of(pid, directory)]


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (line.split(" ")[4].replace("\\040", " ") for line in lines)
    return [point for point in points if point.startswith(f"{directory}/")]


def kill_and_wait(pid: int) -> None:
    """SIGKILL; returns when the process is no more than a zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not _runs(pid), f"{pid} is dead", 30)


def until(condition: Any, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {what}"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
