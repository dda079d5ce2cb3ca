"""Options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DIRECTORY_VARIABLE = "FIREFLYFS_DIR"

DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help=f"The cluster's directory (default: ${DIRECTORY_VARIABLE}, else ~/.fireflyfs).",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def chosen_directory(option: Path | None) -> Path:
    """The directory that the user means, absolute."""
    given = option or os.environ.get(DIRECTORY_VARIABLE) or Path.home() / ".fireflyfs"
    return Path(given).expanduser().absolute()
