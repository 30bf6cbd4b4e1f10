"""Settings of a client, and where they are looked for."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from gfsprotocol.errors import ConfigurationError
from gfsprotocol.ids import CHUNK_BYTES_MAX, MIB, REPLICATION_MAX
from gfsprotocol.settings import Addresses, Settings, load

CONFIG_VARIABLE = "GFS_CONFIG"


class ClientConfig(Settings):
    """A client: which cluster it speaks to, and how patient and how greedy it is."""

    model_config = SettingsConfigDict(env_prefix="GFS_CLIENT_")

    masters: Addresses = Field(min_length=1, description="host:port of all master nodes.")
    key: str = Field(description="The clients' key of the cluster, hexadecimal (gfs up writes it).", repr=False)
    deadline_seconds: float = Field(
        60.0, gt=0, le=3600, description="How long an operation may go without any progress before it fails."
    )
    replication: int = Field(
        0, ge=0, le=REPLICATION_MAX, description="Copies of new files; 0 is the cluster's default."
    )
    chunk_bytes: int = Field(
        0, ge=0, le=CHUNK_BYTES_MAX, description="Chunk size of new files, in bytes; 0 is the cluster's default."
    )
    read_ahead_bytes: int = Field(
        32 * MIB, ge=0, le=256 * MIB, description="How much of a file that is read in sequence is fetched ahead."
    )
    read_progress_seconds: float = Field(
        3.0, gt=0, le=300, description="A chunk server that sends nothing for so long is left for another replica."
    )
    hedge_seconds: float = Field(
        0.25, gt=0, le=60, description="A small read unanswered for so long is also asked of a second replica."
    )
    write_window_packets: int = Field(
        16, ge=4, le=128, description="Packets of 1 MiB that an open file keeps until they are acknowledged."
    )
    read_from: Literal["leader", "standby"] = Field(
        "leader",
        description="Who answers reads of metadata: a standby may not know yet what other clients have just changed, "
        "but it knows all that this client has written or seen.",
    )
    threads: int = Field(32, ge=4, le=256, description="Threads that carry out file operations, at most.")

    @field_validator("key")
    @classmethod
    def _hexadecimal(cls, key: str) -> str:
        try:
            bytes.fromhex(key)
        except ValueError:
            raise ValueError("not hexadecimal") from None
        return key

    @property
    def key_bytes(self) -> bytes:
        return bytes.fromhex(self.key)


def load_config(path: str | os.PathLike[str] | None = None) -> ClientConfig:
    """The client's settings from ``path`` or the first file that :func:`find_config` finds, under the environment.

    ConfigurationError if there is none, or if it is not valid.
    """
    file = find_config(path)
    return load(ClientConfig, file)


def find_config(path: str | os.PathLike[str] | None = None) -> Path | None:
    """The configuration file: ``path``, $GFS_CONFIG, the user's own, or that of the cluster ``gfs up`` started last.

    None if there is no file but the environment has all that is needed; else ConfigurationError that says what was
    looked for.
    """
    if path is not None:
        return Path(path)
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    own = _xdg("XDG_CONFIG_HOME", ".config") / "gfs" / "client.toml"
    if own.is_file():
        return own
    current = current_file()
    if current.is_file():
        return Path(os.fsdecode(current.read_bytes().strip()))
    if "GFS_CLIENT_MASTERS" in os.environ and "GFS_CLIENT_KEY" in os.environ:
        return None
    raise ConfigurationError(
        f"no cluster is configured: ${CONFIG_VARIABLE} is not set, and there is no {own} and no {current} "
        "(start a cluster with 'gfs up', or give the path of a client.toml)"
    )


def current_file() -> Path:
    """Where ``gfs up`` writes the path of its cluster's client.toml."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "gfs" / "current"


def _xdg(variable: str, below_home: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / below_home)
