"""``gfs status``: is my data safe, and how is everybody?"""

import asyncio
from pathlib import Path
from typing import Any

import click

from gfsclient.cli.output import json_line, line, size_text, table
from gfsclient.config import ClientConfig, find_config, load_config
from gfscluster import gateways, options, probe
from gfscluster.health import Health, judge
from gfscluster.layout import Layout, read_shape
from gfsprotocol.errors import GfsError
from gfsprotocol.messages import ServerStatus, Status

ASK_SECONDS = 5.0


@click.command("status")
@click.option(
    "--dir",
    "directory",
    type=options.DIRECTORY,
    help="The directory of gfs up.  [default: the cluster that gfsclient would use]",
)
@options.config
@click.option("--json", "json", is_flag=True, help="One JSON object.")
def command(directory: Path | None, config: Path | None, json: bool) -> int:
    """Answers "is my data safe?" in one line, then shows masters and chunk servers.

    Exit code 0: all is well. 1: nothing is lost, but something is not as it should be. 27: a chunk has no good copy.
    35: no master answers for the cluster.
    """
    settings = chosen_config(directory, config)
    answers = asyncio.run(probe.statuses(settings.masters, settings.key_bytes, ASK_SECONDS))
    health = judge(answers)
    leader = probe.find_leader(answers)
    status = answers[leader] if leader is not None else None
    gateway_states = _gateways(directory, config)
    if json:
        json_line(_as_json(health, answers, gateway_states, status if isinstance(status, Status) else None))
    else:
        line(f"Is my data safe? {health.line}")
        _show_masters(answers)
        if gateway_states:
            line()
            rows = [(each["address"], each["name"], each["state"]) for each in gateway_states]
            table(rows, ("GATEWAY", "NAME", "STATE"))
        if isinstance(status, Status):
            _show_cluster(status)
    return health.band.value


def _gateways(directory: Path | None, config: Path | None) -> list[dict[str, str]]:
    """The gateways of a cluster on this host; none are known of one elsewhere."""
    file = find_config(config)
    place = Layout(directory.absolute()) if directory is not None else Layout(file.parent) if file else None
    if place is None or not place.exists():
        return []
    return gateways.states(place, read_shape(place), ASK_SECONDS)


def chosen_config(directory: Path | None, config: Path | None) -> ClientConfig:
    """The client's settings of the cluster that is meant."""
    if directory is not None and config is not None:
        raise click.UsageError("--dir and --config exclude each other")
    if directory is not None:
        config = options.existing(directory).client_file
    return load_config(config)


def _show_masters(answers: dict[str, Status | GfsError]) -> None:
    line()
    rows = []
    for address, answer in answers.items():
        if isinstance(answer, Status):
            uptime = f"{answer.uptime_seconds:.0f} s"
            lag = f"{answer.lag_ms} ms" if answer.role == "standby" else "-"
            rows.append((address, answer.node, answer.role, str(answer.epoch), str(answer.sequence), lag, uptime))
        else:
            rows.append((address, "-", f"no answer ({answer.message})", "-", "-", "-", "-"))
    table(rows, ("MASTER", "NAME", "ROLE", "EPOCH", "SEQUENCE", "LAG", "UP"), right=(3, 4, 5, 6))


def _show_cluster(status: Status) -> None:
    line()
    rows = [_server_row(server) for server in status.servers]
    header = ("CHUNK SERVER", "STATE", "LAST SEEN", "CHUNKS", "DISKS", "SIZE", "FREE")
    table(rows, header, right=(2, 3, 4, 5, 6))
    line()
    counts = [
        ("inodes", status.inodes),
        ("chunks", status.chunks),
        ("with too few copies", status.under_replicated),
        ("without a good copy", status.missing),
        ("corrupt copies", status.corrupt_replicas),
        ("copies to delete", status.pending_deletions),
        ("files open for writing", status.open_files),
        ("clients", status.clients),
    ]
    table([(name, str(count)) for name, count in counts], right=(1,))


def _server_row(server: ServerStatus) -> tuple[str, ...]:
    total, free = sum(disk.total_bytes for disk in server.disks), sum(disk.free_bytes for disk in server.disks)
    failed = sum(bool(disk.failed) for disk in server.disks)
    return (
        f"{server.host}:{server.port}",
        "alive" if server.alive else "silent",
        f"{server.last_heartbeat_seconds:.1f} s",
        str(server.chunks),
        f"{len(server.disks)}" + (f" ({failed} failed)" if failed else ""),
        size_text(total),
        size_text(free),
    )


def _as_json(
    health: Health,
    answers: dict[str, Status | GfsError],
    gateway_states: list[dict[str, str]],
    status: Status | None,
) -> dict[str, Any]:
    """The written contract: see docs/cli.md."""
    value: dict[str, Any] = {
        "state": health.band.name.lower(),
        "verdict": health.verdict,
        "reasons": list(health.reasons),
        "masters": [_master_json(address, answer) for address, answer in answers.items()],
        "gateways": gateway_states,
    }
    if status is not None:
        value |= {
            "cluster": status.cluster.hex(),
            "leader": status.leader,
            "epoch": status.epoch,
            "safe_mode": status.safe_mode,
            "brake": status.brake,
            "replication": status.replication,
            "inodes": status.inodes,
            "chunks": status.chunks,
            "under_replicated": status.under_replicated,
            "missing": status.missing,
            "corrupt_replicas": status.corrupt_replicas,
            "pending_deletions": status.pending_deletions,
            "open_files": status.open_files,
            "clients": status.clients,
            "chunkservers": [_server_json(server) for server in status.servers],
        }
    return value


def _master_json(address: str, answer: Status | GfsError) -> dict[str, Any]:
    if not isinstance(answer, Status):
        return {"address": address, "error": answer.message}
    return {
        "address": address,
        "node": answer.node,
        "role": answer.role,
        "epoch": answer.epoch,
        "sequence": answer.sequence,
        "committed_sequence": answer.committed_sequence,
        "lag_ms": answer.lag_ms,
        "uptime_seconds": answer.uptime_seconds,
    }


def _server_json(server: ServerStatus) -> dict[str, Any]:
    return {
        "id": f"{server.server:016x}",
        "address": f"{server.host}:{server.port}",
        "alive": server.alive,
        "last_heartbeat_seconds": server.last_heartbeat_seconds,
        "chunks": server.chunks,
        "disks": [
            {
                "path": disk.path,
                "total_bytes": disk.total_bytes,
                "free_bytes": disk.free_bytes,
                "chunks": disk.chunks,
                "failed": disk.failed,
            }
            for disk in server.disks
        ],
    }
