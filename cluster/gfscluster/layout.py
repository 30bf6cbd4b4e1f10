"""What ``gfs up`` keeps in its directory, and where.

::

    D/cluster.toml         what was asked for when the directory was made, and whether the cluster has begun
    D/secret               the cluster's secret, hexadecimal, for the owner only
    D/client.toml          what clients need: the masters and the clients' key
    D/gateway-secret       what gateways' bearer tokens are signed with, hexadecimal, for the owner only
    D/config/NAME.toml     one process's settings; yours to edit
    D/journal.sqlite       the operation log, shared by the masters, if it is not in PostgreSQL
    D/chunkserver-N/disk-1 a chunk server's data directory
    D/logs/NAME.log        what the processes say
    D/logs/NAME.access.log a gateway's requests, one line of JSON each
    D/run/NAME.json        what runs: process id and start time
"""

import json
import os
import secrets
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gfscluster.shape import Shape
from gfsprotocol.errors import ConfigurationError
from gfsprotocol.settings import read_secret
from gfsprotocol.tokens import client_key

SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Layout:
    """The directory of one cluster on this host."""

    directory: Path

    @property
    def secret_file(self) -> Path:
        return self.directory / "secret"

    @property
    def gateway_secret_file(self) -> Path:
        return self.directory / "gateway-secret"

    @property
    def client_file(self) -> Path:
        return self.directory / "client.toml"

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.toml"

    @property
    def run_directory(self) -> Path:
        return self.directory / "run"

    def config_file(self, name: str) -> Path:
        return self.directory / "config" / f"{name}.toml"

    def log_file(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def access_log_file(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.access.log"

    def exists(self) -> bool:
        return self.cluster_file.exists()


def read_shape(layout: Layout) -> Shape:
    """What ``cluster.toml`` says; ConfigurationError if it cannot be used."""
    try:
        values = tomllib.loads(layout.cluster_file.read_text())
        return Shape(**values)
    except OSError as error:
        raise ConfigurationError(f"cannot read {layout.cluster_file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ConfigurationError(f"{layout.cluster_file} is not a cluster's description: {error}") from error


def create(layout: Layout, shape: Shape) -> None:
    """Makes the directory of a new cluster; ``cluster.toml`` comes last, so a crash leaves no half cluster behind."""
    _check_name(layout.directory)
    _make_directory(layout.directory)
    strangers = sorted(entry.name for entry in layout.directory.iterdir() if entry.name not in _OURS_BEFORE_START)
    if strangers:
        raise ConfigurationError(
            f"{layout.directory} is not empty and holds no cluster (no cluster.toml, but {strangers[0]}): "
            "name a new or an empty directory"
        )
    for name in ("config", "logs", "run"):
        _make_directory(layout.directory / name)
    secret = secrets.token_bytes(SECRET_BYTES)
    write_private(layout.secret_file, secret.hex() + "\n")
    write_private(layout.client_file, _toml({"masters": shape.master_addresses, "key": client_key(secret).hex()}))
    for index, name in enumerate(shape.master_names):
        write_private(layout.config_file(name), _toml(_master_settings(layout, shape, index)))
    for index, name in enumerate(shape.chunkserver_names):
        disk = layout.directory / name / "disk-1"
        disk.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_private(layout.config_file(name), _toml(_chunkserver_settings(layout, shape, index, disk)))
    write_private(layout.gateway_secret_file, secrets.token_hex(SECRET_BYTES) + "\n")
    for index, name in enumerate(shape.gateway_names):
        write_private(layout.config_file(name), _toml(_gateway_settings(layout, shape, index)))
    write_private(layout.cluster_file, _toml(shape.as_dict()))


def mark_begun(layout: Layout, shape: Shape) -> None:
    """From now on an empty log means that it was lost: no start will begin a new one."""
    write_private(layout.cluster_file, _toml(replace(shape, begun=True).as_dict()))


def key_of(layout: Layout) -> bytes:
    """The clients' key of this cluster."""
    return client_key(read_secret(layout.secret_file))


def write_private(file: Path, text: str) -> None:
    """Replaces ``file`` at once and durably, readable for the owner only."""
    temporary = file.with_name(f".{file.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


_OURS_BEFORE_START = {"config", "logs", "run", "secret", "gateway-secret", "client.toml", "launcher.lock"}


def _check_name(directory: Path) -> None:
    """The path stands in configuration files and in the journal's URL, where not every name can."""
    name = str(directory)
    if not name.isprintable() or "?" in name:
        raise ConfigurationError(f"{name!r} cannot hold a cluster: it has a control character, a '?' or no UTF-8")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make {directory}: {error.strerror}") from error


def _master_settings(layout: Layout, shape: Shape, index: int) -> dict[str, Any]:
    return {
        "node": shape.master_names[index],
        "host": shape.host,
        "port": shape.master_port(index),
        "masters": shape.master_addresses,
        "journal": shape.journal or f"sqlite:///{layout.directory / 'journal.sqlite'}",
        "secret_file": str(layout.secret_file),
        "replication": shape.replication,
        "min_replicas": min(2, shape.replication),
    }


def _chunkserver_settings(layout: Layout, shape: Shape, index: int, disk: Path) -> dict[str, Any]:
    return {
        "host": shape.host,
        "port": shape.chunkserver_port(index),
        "directories": [str(disk)],
        "masters": shape.master_addresses,
        "secret_file": str(layout.secret_file),
    }


def _gateway_settings(layout: Layout, shape: Shape, index: int) -> dict[str, Any]:
    name = shape.gateway_names[index]
    return {
        "host": shape.host,
        "port": shape.gateway_port(index),
        "client_file": str(layout.client_file),
        "token_secret_file": str(layout.gateway_secret_file),
        "access_log": str(layout.access_log_file(name)),
    }


def _toml(values: dict[str, Any]) -> str:
    """Strings, numbers, booleans and lists of strings as TOML; JSON's notation of these is TOML's too."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
