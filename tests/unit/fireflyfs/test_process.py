"""Exit codes and messages of a process, and its log lines."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from fireflyfs import log, process
from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


async def fail(error: Exception) -> None:
    async with trio.open_nursery():
        raise error


def test_returning_is_success() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()

    assert process.run(main) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(number: signal.Signals) -> None:
    cleaned = []

    async def main() -> None:
        os.kill(os.getpid(), number)
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    assert process.run(main) == 0
    assert cleaned


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FsError(Code.CONFIG, "bad key"), 2),
        (FsError(Code.INVALID, "bad"), 2),
        (FsError(Code.NO_SPACE, "full"), 1),
    ],
)
def test_a_known_error_is_one_line(
    error: FsError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert process.run(lambda: fail(error)) == code
    assert capsys.readouterr().err == f"fireflyfs: {error.message}\n"


def test_a_defect_is_logged_with_its_traceback(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert process.run(lambda: fail(ValueError("oops"))) == 1
    assert capsys.readouterr().err == "fireflyfs: oops\n"
    assert caplog.records[0].exc_info is not None


@pytest.fixture
def quiet_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("quiet_root")
def test_a_log_line_is_keys_and_values(tmp_path: Path) -> None:
    path = tmp_path / "meta.log"
    log.setup("meta", path)
    logger = logging.getLogger("some.module")
    logger.warning('node "x" is\nsilent', extra={"node": 3, "reason": "a=b", "empty": ""})
    try:
        raise FsError(Code.CHECKSUM, "rot")
    except FsError:
        logger.exception("failed")
    first, second, *rest = path.read_text().splitlines()
    assert first.startswith("time=20")
    assert "level=warning role=meta" in first
    assert first.endswith(
        'logger=some.module message="node \\"x\\" is\\nsilent" node=3 reason="a=b" empty=""'
    )
    assert "level=error" in second
    assert "rot" in rest[-1]


@pytest.mark.usefixtures("quiet_root")
def test_a_log_file_that_cannot_be_opened_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(FsError, match=f"log file {tmp_path}: Is a directory") as caught:
        log.setup("meta", tmp_path)
    assert caught.value.code is Code.CONFIG
