"""``fireflyfs bench``: measurements, each figure beside its ceiling."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fireflyfs.bench.report import report

if TYPE_CHECKING:
    from fireflyfs.bench.report import Figure

app = typer.Typer(help="Measure; every figure is a ratio to a ceiling of the same run.")

MIB = 1 << 20


@app.command("mount")
def bench_mount(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to put the scratch cluster (default: /dev/shm)."),
    ] = None,
    size: Annotated[int, typer.Option(help="MiB of the large file.")] = 256,
    files: Annotated[int, typer.Option(help="Small files.")] = 1000,
    runs: Annotated[int, typer.Option(help="Repetitions; the median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """The POSIX mount against the local directory and a null FUSE file system."""
    from fireflyfs.bench.mount import Scale, bench_mount

    console = Console(stderr=True)
    shared_memory = Path("/dev/shm")
    parent = directory or (shared_memory if shared_memory.is_dir() else None)
    scratch = Path(tempfile.mkdtemp(prefix="fireflyfs-bench-", dir=parent))
    try:
        with console.status("starting a scratch cluster") as status:
            scale = Scale(size * MIB, files, reads=2000)
            figures = bench_mount(scratch, scale, runs, status.update)
    finally:
        shutil.rmtree(scratch)
    show("mount", figures, as_json=as_json)


def show(name: str, figures: list[Figure], *, as_json: bool) -> None:
    """Print a benchmark's figures."""
    if as_json:
        print(json.dumps(report(name, figures)))
        return
    table = Table(title=f"fireflyfs bench {name}")
    for column in ("figure", "value", "ceiling", "of", "ratio", "target"):
        table.add_column(column, justify="left" if column in ("figure", "of") else "right")
    for one in figures:
        table.add_row(
            one.name,
            f"{one.value:,.0f} {one.unit}",
            f"{one.ceiling:,.0f}",
            one.ceiling_name,
            f"{one.ratio:.3f}",
            "" if one.target is None else f"{one.target:g}",
        )
    Console().print(table)
