from __future__ import annotations

import errno

import pytest

from fireflyfs.errors import Code, FsError, code_of, refusal_in

GONE = FsError(Code.UNREACHABLE, "gone")
FULL = FsError(Code.NO_SPACE, "full")


def test_a_message_carries_its_causes() -> None:
    try:
        try:
            raise OSError(errno.EIO, "disk")
        except OSError as error:
            raise FsError(Code.TARGET_FAILED, "target 7") from error
    except FsError as error:
        text = str(error)
    assert text == "target 7: [Errno 5] disk"


def test_a_number_of_a_newer_peer_is_internal() -> None:
    assert code_of(306) is Code.NO_SPACE
    assert code_of(12345) is Code.INTERNAL


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (FULL, FULL),
        (ValueError("defect"), None),
        (ExceptionGroup("", [GONE]), GONE),
        (ExceptionGroup("", [GONE, ExceptionGroup("", [FULL])]), FULL),
        (ExceptionGroup("", [GONE, ValueError("defect")]), None),
    ],
)
def test_a_group_of_refusals_is_one(error: Exception, refusal: FsError | None) -> None:
    assert refusal_in(error) is refusal
