"""One process, kept running: found again or started, recorded, restarted with back-off."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import FsError
from fireflyfs.supervisor import mountpoint, processes
from fireflyfs.supervisor.directory import ProcessSpec, write

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.supervisor.processes import Running

logger = logging.getLogger(__name__)

SUPERVISOR = "supervisor"
"""Name and role of who keeps the others, in its own record."""
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
HEALTHY_SECONDS = 30.0
"""A process that lived so long is started again at once when it ends."""


@dataclass(slots=True)
class Record:
    """``run/NAME.json``: what people and ``status`` want to know about one process."""

    name: str
    role: str
    pid: int = 0
    start_time: int = 0
    """Clock ticks since boot: with ``pid``, the process and no other."""
    since: float = 0.0
    """Seconds since 1970."""
    restarts: int = 0
    """Since the supervisor first kept it."""
    failures: int = 0
    """Ends in a row, each before it had lived for HEALTHY_SECONDS."""
    last_exit: int | None = None
    """Exit code of the last end; negative: the signal; None: none yet, or not known."""

    @property
    def alive(self) -> bool:
        try:
            return bool(self.pid) and processes.started_at(self.pid) == self.start_time
        except OSError:
            return False


def read_record(file: Path) -> Record | None:
    """None if there is none, or it is not one."""
    try:
        return Record(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


class Keeper:
    """Keeps the process of one spec alive: a server for ever, a mount for as long as its
    configuration is there."""

    def __init__(self, spec: ProcessSpec, records: Path) -> None:
        self.spec = spec
        self._file = records / f"{spec.name}.json"
        self._record = read_record(self._file) or Record(spec.name, spec.role)
        self._record.failures = 0
        self._delay = FIRST_DELAY

    async def keep(self) -> None:
        """Cancellation leaves the process running."""
        while self.spec.mountpoint is None or self.spec.config.exists():
            born = trio.current_time()
            running = processes.find(self.spec.config)
            if running is not None:
                self._note(running, "adopted")
            else:
                running = await self._start()
            if running is not None:
                try:
                    self._record.last_exit = await running.wait()
                finally:
                    running.close()
            await self._pause(trio.current_time() - born)
        self._file.unlink(missing_ok=True)

    async def _start(self) -> Running | None:
        try:
            if self.spec.mountpoint is not None:
                # Its process is dead: what the kernel still has of it answers nobody.
                await trio.to_thread.run_sync(mountpoint.detach, self.spec.mountpoint)
                self.spec.mountpoint.mkdir(exist_ok=True)
            running = processes.start(self.spec.command, self.spec.log, self.spec.log.parent)
        except (OSError, FsError) as error:
            logger.exception("cannot start", extra={"child": self.spec.name}, exc_info=error)
            return None
        self._note(running, "started")
        return running

    def _note(self, running: Running, how: str) -> None:
        record = self._record
        try:
            start_time = processes.started_at(running.pid)
        except OSError:
            return  # it has ended already, which the next wait will say
        if (record.pid, record.start_time) != (running.pid, start_time):
            record.since = time.time()
        record.pid, record.start_time = running.pid, start_time
        logger.info(how, extra={"child": record.name, "child_pid": running.pid})
        self._write()

    async def _pause(self, lived: float) -> None:
        record = self._record
        record.restarts += 1
        if lived >= HEALTHY_SECONDS:
            self._delay, record.failures = FIRST_DELAY, 0
        record.failures += 1
        logger.warning(
            "ended",
            extra={
                "child": record.name,
                "child_pid": record.pid,
                "exit_code": record.last_exit,
                "restart_in": self._delay,
            },
        )
        self._write()
        await trio.sleep(self._delay)
        self._delay = min(self._delay * 2, LONGEST_DELAY)

    def _write(self) -> None:
        try:
            write(self._file, json.dumps(asdict(self._record)))
        except OSError as error:  # a full disk must not end the supervision
            logger.warning("cannot record", extra={"child": self.spec.name, "error": error})
