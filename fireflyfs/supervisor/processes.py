"""Processes of this machine, each held by a pidfd: found again, waited for and stopped without
ever mistaking another one for it.

A process of a cluster is known by its command line, which names its configuration file: that
holds after the supervisor was killed, after a crash between starting and recording, and after a
reboot, where a recorded number would not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROC = Path("/proc")
CONFIG_FLAG = "--config"


@dataclass(slots=True)
class Running:
    """One process that lives, or lived when it was opened."""

    pid: int
    descriptor: int
    """pidfd: readable once the process has ended, never another process's."""

    @classmethod
    def open(cls, pid: int) -> Running:
        """Raises ProcessLookupError."""
        return cls(pid, os.pidfd_open(pid))

    async def wait(self) -> int | None:
        """Until it has ended. The exit code (negative: the signal) of a child of ours, once."""
        await trio.lowlevel.wait_readable(self.descriptor)
        return self._reap()

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _reap(self) -> int | None:
        try:
            ended = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    async def stop(self, grace: float) -> bool:
        """SIGTERM, then SIGKILL after ``grace`` seconds; True if the first was enough."""
        self.send(signal.SIGTERM)
        with trio.move_on_after(grace):
            await self.wait()
            return True
        self.send(signal.SIGKILL)
        await self.wait()
        return False

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def start(command: Sequence[str], log: Path, directory: Path) -> Running:
    """Start a process in a session of its own; what it writes goes to the end of ``log``.

    Raises OSError.
    """
    with open(log, "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            start_new_session=True,
        )
    running = Running.open(child.pid)
    # It may outlive us, and is reaped through its pidfd: there is nothing left for Popen to do.
    child.returncode = 0
    # exec tells Popen that it worked some instructions before the command line can be read, and
    # until then ``find`` does not know the process.
    while not arguments(running.pid) and not running.has_ended():
        time.sleep(0.001)
    return running


def find(config: Path) -> Running | None:
    """The process that serves this configuration file, if one lives."""
    for pid in pids():
        if not _serves(pid, config):
            continue
        with contextlib.suppress(ProcessLookupError):
            running = Running.open(pid)
            # The number may have changed hands between the look and the grip.
            if _serves(pid, config):
                return running
            running.close()
    return None


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def arguments(pid: int) -> list[str]:
    """The command line; empty if the process is gone or a zombie."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


def started_at(pid: int) -> int:
    """Start time in clock ticks since boot (proc(5), stat field 22): with the pid, an identity.

    Raises OSError if the process is gone, or a zombie that nobody reaps.
    """
    stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def config_of(pid: int) -> Path | None:
    """The configuration file on a process's command line."""
    words = arguments(pid)
    if CONFIG_FLAG in words[:-1]:
        return Path(words[words.index(CONFIG_FLAG) + 1])
    return None


def _serves(pid: int, config: Path) -> bool:
    return config_of(pid) == config
