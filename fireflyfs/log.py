"""Logs: one line for each event, ``key=value``, through the standard library's ``logging``.

Modules say ``logger = logging.getLogger(__name__)`` and put what a machine may look for in
``extra``: ``logger.warning("node is silent", extra={"node": 3})``.
"""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from pathlib import Path

MAX_LOG_BYTES = 16 << 20
KEPT_LOGS = 3

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """Time (UTC), level, role, logger, message, the ``extra`` fields; a traceback follows."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, object] = {
            "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        line = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def setup(role_name: str, file: Path | None = None, level: int = logging.INFO) -> None:
    """Send this process's log to ``file`` (rotated by size), or to standard error.

    Replaces what an earlier call set up. Raises FsError(CONFIG) if the file cannot be opened.
    """
    handler = logging.StreamHandler() if file is None else _open(file)
    handler.setFormatter(KeyValueFormatter(role_name))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _open(file: Path) -> logging.Handler:
    try:
        return logging.handlers.RotatingFileHandler(
            file, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8"
        )
    except OSError as error:
        raise FsError(Code.CONFIG, f"log file {file}: {error.strerror}") from None


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text.isascii() and not any(c in text for c in ' "=\\')
    return text if plain and text else json.dumps(text)
