"""``fireflyfs``: the command line. Verbs are in the modules beside this one.

Exit codes: 0 done, 1 it failed, 2 it was asked wrongly. Every failure is one line.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fireflyfs.cli import bench, doctor, kv, mount, serve, status, up
from fireflyfs.errors import Code, FsError

app = typer.Typer(
    name="fireflyfs",
    help="A distributed file system for AI clusters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fireflyfs {version('fireflyfs')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    pass


for module in (up, status, mount, doctor):
    module.register(app)
serve.register(app)
app.add_typer(bench.app, name="bench")
app.add_typer(kv.app, name="kv")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Prints every error as one line."""
    try:
        code = app(arguments, prog_name="fireflyfs", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("FIREFLYFS_TRACEBACK"):
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    while isinstance(error, ExceptionGroup):  # of trio's nurseries
        known, others = error.split(FsError)
        error = (known or others or error).exceptions[0]
    if isinstance(error, FsError):
        return _fail(str(error), 2 if error.code is Code.CONFIG else 1)
    if isinstance(error, OSError):
        return _fail(str(error), 1)
    # Usage errors. Which class they have depends on typer's version; these they all have.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _fail(error.format_message(), error.exit_code)
    return _fail(f"defect: {error!r} (FIREFLYFS_TRACEBACK=1 shows where)", 1)


def _fail(message: str, code: int) -> int:
    if message:
        sys.stderr.write(f"fireflyfs: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
