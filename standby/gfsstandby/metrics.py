"""A master node's metrics, as they are at the moment when somebody asks. What they mean: :mod:`gfsmaster.measures`."""

from collections.abc import Mapping

from gfsmaster.measures import Measures
from gfsprotocol import messages as msg
from gfsprotocol.metrics import Value
from gfsstandby.node import Node

_MS_PER_SECOND = 1000


def read(node: Node) -> Mapping[str, Value]:
    """By name; of a standby without those that only a leader knows."""
    status = node.status()
    values = {**_counted(node.measures), **_known(node, status)}
    return values | (
        _led(status) if node.leader is not None else {"gfs_master_lag_seconds": status.lag_ms / _MS_PER_SECOND}
    )


def _counted(measures: Measures) -> dict[str, Value]:
    return {
        "gfs_master_requests_total": {(kind.__name__,): count for kind, count in measures.requests.items()},
        "gfs_master_failed_requests_total": measures.failed_requests(),
        "gfs_master_refused_connections_total": measures.refused_connections,
        "gfs_master_elections_won_total": measures.elections_won,
        "gfs_master_leaderships_ended_total": {
            (reason,): count for reason, count in measures.leaderships_ended.items()
        },
        "gfs_master_commits_total": measures.commits,
        "gfs_master_committed_records_total": measures.committed_records,
        "gfs_master_committed_bytes_total": measures.committed_bytes,
        "gfs_master_failed_commits_total": measures.failed_commits,
        "gfs_master_commit_seconds": measures.commit_seconds,
        "gfs_master_dead_chunk_servers_total": measures.dead_servers,
        "gfs_master_failed_orders_total": measures.failed_orders,
        "gfs_master_expired_clients_total": measures.expired_clients,
        "gfs_master_checkpoints_total": measures.checkpoints,
        "gfs_master_failed_checkpoints_total": measures.failed_checkpoints,
    }


def _known(node: Node, status: msg.Status) -> dict[str, Value]:
    return {
        "gfs_master_connections": {(role,): count for role, count in node.roles_connected().items()},
        "gfs_master_leads": int(status.role == "leader"),
        "gfs_master_epoch": status.epoch,
        "gfs_master_applied_sequence": status.sequence,
        "gfs_master_committed_sequence": status.committed_sequence,
        "gfs_master_inodes": status.inodes,
        "gfs_master_chunks": status.chunks,
        "gfs_master_open_files": status.open_files,
        "gfs_master_clients": status.clients,
    }


def _led(status: msg.Status) -> dict[str, Value]:
    connected = sum(server.alive for server in status.servers)
    return {
        "gfs_master_waiting_records": status.sequence - status.committed_sequence,
        "gfs_master_standby_lag_records": {
            (standby.node,): status.committed_sequence - standby.sequence for standby in status.standbys
        },
        "gfs_master_safe_mode": int(status.safe_mode),
        "gfs_master_brake": int(bool(status.brake)),
        "gfs_master_under_replicated_chunks": status.under_replicated,
        "gfs_master_missing_chunks": status.missing,
        "gfs_master_corrupt_replicas": status.corrupt_replicas,
        "gfs_master_pending_deletions": status.pending_deletions,
        "gfs_master_chunk_servers": {
            ("connected",): connected,
            ("away",): len(status.servers) - connected,
        },
    }
