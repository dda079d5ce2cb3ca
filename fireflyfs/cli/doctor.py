"""``fireflyfs doctor``: what this machine and a cluster on it need, checked one by one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
import typer
from rich.console import Console
from rich.table import Table

from fireflyfs import config
from fireflyfs.cli import preflight
from fireflyfs.cli.options import DirectoryOption, JsonOption, chosen_directory
from fireflyfs.cli.output import print_json
from fireflyfs.config import ManagerConfig, MetaConfig
from fireflyfs.errors import FsError
from fireflyfs.supervisor import lifecycle, view
from fireflyfs.supervisor.directory import ClusterDirectory, exists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fireflyfs.supervisor.directory import ProcessSpec

PACKAGES = (
    "apsw", "crc32c", "google.protobuf", "grpc", "grpc_health", "grpc_reflection", "msgpack",
    "pyfuse3", "rich", "rocksdict", "trio", "typer",
)  # fmt: skip
HEALTH_SECONDS = 3.0


@dataclass(slots=True)
class Finding:
    check: str
    problem: str
    """Empty: all is well."""


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and the cluster on it; exit code 1 if anything is wrong."""
    root = chosen_directory(directory)
    findings = list(_machine())
    if exists(root):
        findings += _cluster(root)
    if as_json:
        print_json(
            {
                "directory": str(root),
                "ok": not any(f.problem for f in findings),
                "checks": [{"check": f.check, "problem": f.problem} for f in findings],
            }
        )
    else:
        _print(findings)
    if any(f.problem for f in findings):
        raise typer.Exit(1)


def _machine() -> Iterator[Finding]:
    yield Finding(str(preflight.FUSE_DEVICE), preflight.fuse_device_problem())
    yield Finding("fusermount3", preflight.fusermount_problem())
    missing = [name for name in PACKAGES if not _is_installed(name)]
    problem = f"not installed: {', '.join(missing)}" if missing else ""
    yield Finding("Python packages", problem)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package above a dotted name
        return False


def _cluster(root: Path) -> Iterator[Finding]:
    try:
        opened = ClusterDirectory.open(root)
    except FsError as error:
        yield Finding("cluster directory", str(error))
        return
    yield _checked("secret", lambda: opened.credentials())
    yield _checked("ports", lambda: lifecycle.check_ports(opened))
    seen = trio.run(view.look, opened)
    if not seen.anything_runs:
        yield Finding("processes", f"it is down: fireflyfs up --dir {opened.root}")
        return
    for record in seen.records:
        yield Finding(f"process {record.name}", "" if record.alive else "does not run")
    yield Finding("whole", f"waits for {seen.waits_for()}" if seen.waits_for() else "")
    for spec in opened.specs():
        if spec.role in ("manager", "meta"):
            yield Finding(f"gRPC health of {spec.name}", trio.run(_health, opened, spec))


def _checked(name: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except FsError as error:
        return Finding(name, str(error))
    return Finding(name, "")


async def _health(opened: ClusterDirectory, spec: ProcessSpec) -> str:
    """Empty if the server's gRPC face says that it serves."""
    # Late: gRPC costs half a second to import, and only this check needs it.
    from fireflyfs.rpc.health import check_health

    kind: type[ManagerConfig | MetaConfig] = ManagerConfig if spec.role == "manager" else MetaConfig
    loaded = config.load(spec.config, kind)
    try:
        await check_health(loaded.grpc, opened.credentials(), timeout=HEALTH_SECONDS)
    except FsError as error:
        return str(error)
    return ""


def _print(findings: list[Finding]) -> None:
    table = Table("check", "result")
    for finding in findings:
        result = f"[red]{finding.problem}[/red]" if finding.problem else "[green]ok[/green]"
        table.add_row(finding.check, result)
    Console().print(table)
