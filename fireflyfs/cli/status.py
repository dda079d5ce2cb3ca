"""``fireflyfs status``: nodes, chains, targets, space, mounts and processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio
import typer
from rich.console import Console
from rich.table import Table

from fireflyfs.cli.options import DirectoryOption, JsonOption, chosen_directory
from fireflyfs.cli.output import format_seconds, format_size, print_json
from fireflyfs.routing import LocalState, PublicState, Role
from fireflyfs.supervisor import view
from fireflyfs.supervisor.directory import ClusterDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fireflyfs.rpc import cluster_pb2
    from fireflyfs.supervisor.view import View

_COLOURS = {"serving": "green", "lastsrv": "red", "offline": "red"}


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Show the cluster; exit code 0 if anything of it runs, 1 if it is down."""
    opened = ClusterDirectory.open(chosen_directory(directory))
    seen = trio.run(view.look, opened)
    if as_json:
        print_json(as_json_object(opened, seen))
    else:
        print_status(opened, seen)
    if state_of(seen) == "down":
        raise typer.Exit(1)


def state_of(seen: View) -> str:
    """``up``: whole; ``degraded``: runs, something is missing; ``down``: nothing runs."""
    if not seen.anything_runs:
        return "down"
    return "degraded" if seen.waits_for() else "up"


def as_json_object(directory: ClusterDirectory, seen: View) -> dict[str, object]:
    return {
        "directory": str(directory.root),
        "cluster_id": directory.cluster.cluster_id,
        "cluster_file": str(directory.cluster_file),
        "state": state_of(seen),
        "waits_for": seen.waits_for(),
        "replicas": directory.cluster.replicas,
        "chunk_size": directory.cluster.chunk_size,
        "mounts": [
            {
                "mountpoint": str(m.point),
                "mounted": m.mounted,
                "answers": m.answers,
                "size_bytes": m.size,
                "free_bytes": m.free,
            }
            for m in seen.mounts
        ],
        "processes": [
            {
                "name": r.name,
                "role": r.role,
                "pid": r.pid if r.alive else None,
                "restarts": r.restarts,
                "uptime_seconds": round(time.time() - r.since, 1) if r.alive else None,
                "last_exit": r.last_exit,
            }
            for r in seen.records
        ],
        "nodes": [_node_json(n) for n in seen.status.nodes] if seen.status else [],
        "chains": [_chain_json(c) for c in seen.status.chains] if seen.status else [],
    }


def _node_json(node: cluster_pb2.NodeStatus) -> dict[str, object]:
    return {
        "node_id": node.node.node_id,
        "role": Role(node.node.role).name.lower(),
        "name": node.node.name,
        "alive": node.node.alive,
        "addresses": list(node.node.addresses),
        "seconds_since_heartbeat": round(node.seconds_since_heartbeat, 3),
    }


def _chain_json(chain: cluster_pb2.ChainStatus) -> dict[str, object]:
    return {
        "chain_id": chain.chain_id,
        "version": chain.version,
        "whole": view.is_whole(chain),
        "last_change": chain.last_change,
        "targets": [
            {
                "target_id": t.target.target_id,
                "node_id": t.target.node_id,
                "state": public_name(t.target.state),
                "local_state": local_name(t.report.state),
                "used_bytes": t.report.used_bytes,
                "capacity_bytes": t.report.capacity_bytes,
                "chunks": t.report.chunks,
                "sync_remaining": t.report.sync_remaining,
                "reason": t.report.reason,
            }
            for t in chain.targets
        ],
    }


def public_name(number: int) -> str:
    known = number in PublicState._value2member_map_
    return PublicState(number).name.lower() if known else "unknown"


def local_name(number: int) -> str:
    known = number in LocalState._value2member_map_
    return LocalState(number).name.lower() if known else "unknown"


def print_status(directory: ClusterDirectory, seen: View) -> None:
    console = Console()
    missing = seen.waits_for()
    state = state_of(seen)
    why = f", waiting for {missing}" if missing and state != "down" else ""
    cluster = directory.cluster
    console.print(
        f"cluster {cluster.cluster_id} in {directory.root}: {state}{why}; {cluster.replicas} "
        f"replicas, chunks of {format_size(cluster.chunk_size)}",
        highlight=False,
        soft_wrap=True,
    )
    if state == "down":
        return
    console.print(_process_table(seen))
    if seen.status is not None:
        names = {n.node.node_id: n.node.name for n in seen.status.nodes}
        console.print(_chain_table(seen.status.chains, names))
    for mount in seen.mounts:
        if mount.answers:
            space = f"{format_size(mount.free)} free of {format_size(mount.size)}"
        else:
            space = "does not answer" if mount.mounted else "not mounted"
        console.print(f"mount {mount.point}: {space}", highlight=False, soft_wrap=True)


def _process_table(seen: View) -> Table:
    heard: dict[str, str] = {}
    if seen.status is not None:
        for n in seen.status.nodes:
            age = f"{n.seconds_since_heartbeat:.1f} s ago"
            heard[n.node.name] = age if n.node.alive else f"[red]{age}[/red]"
    table = Table("process", "pid", "up for", "restarts", "heartbeat")
    for record in seen.records:
        alive = record.alive
        table.add_row(
            record.name,
            str(record.pid) if alive else "[red]none[/red]",
            format_seconds(time.time() - record.since) if alive else "",
            str(record.restarts),
            heard.get(record.name, ""),
        )
    return table


def _chain_table(chains: Iterable[cluster_pb2.ChainStatus], names: dict[int, str]) -> Table:
    table = Table("chain", "version", "targets, head first", "used", "last change")
    for chain in chains:
        used = max((t.report.used_bytes for t in chain.targets), default=0)
        table.add_row(
            str(chain.chain_id),
            str(chain.version),
            ", ".join(_target_text(t, names) for t in chain.targets),
            format_size(used),
            chain.last_change,
        )
    return table


def _target_text(target: cluster_pb2.TargetStatus, names: dict[int, str]) -> str:
    state = public_name(target.target.state)
    local = local_name(target.report.state)
    name = names.get(target.target.node_id, f"node {target.target.node_id}")
    colour = _COLOURS.get(state, "yellow")
    text = f"{name} [{colour}]{state}[/{colour}]"
    if target.report.sync_remaining:
        text += f" ({target.report.sync_remaining} chunks to go)"
    elif state == "serving" and local != "uptodate":
        text += f" ({local})"
    return text
