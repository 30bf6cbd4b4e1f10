"""Settings of a master node."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gfsprotocol.ids import CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, REPLICATION_MAX
from gfsprotocol.settings import Addresses, LogLevel, Settings


class MasterConfig(Settings):
    """A master node: it starts as a standby and becomes active by election."""

    model_config = SettingsConfigDict(env_prefix="GFS_MASTER_")

    node: str = Field("master", description="The node's name, unique among the masters of a cluster.")
    host: str = Field("127.0.0.1", description="The address to listen on, and under which others reach this node.")
    port: int = Field(9400, ge=1, le=65535, description="The port to listen on.")
    listen_port: int = Field(
        0, ge=0, le=65535, description="Where to listen if a forwarder listens on the port; 0: on the port itself."
    )
    masters: Addresses = Field(
        default_factory=list, description="host:port of all master nodes; empty means that this is the only one."
    )
    journal: str = Field(
        description="The operation log's database, as SQLAlchemy writes it: sqlite:////path/to/file, or "
        "postgresql+psycopg://user:password@host/database."
    )
    journal_wait_seconds: float = Field(
        30.0, ge=0, description="How long a master that starts waits for a database that it cannot reach."
    )
    secret_file: Path = Field(description="The cluster's secret, hexadecimal; chunk servers need the same.")
    genesis: bool = Field(False, description="Begin a new cluster if the log is empty; else an empty log is refused.")
    lease_seconds: float = Field(
        2.0,
        ge=0.2,
        le=60,
        description="How long a leader may be silent before a standby takes over. A mount believes a silent one for "
        "1 s, so with less than 2 s it may show for a moment what was true before the takeover.",
    )
    replication: int = Field(3, ge=1, le=REPLICATION_MAX, description="Copies of a new file's chunks.")
    min_replicas: int = Field(
        2,
        ge=1,
        le=REPLICATION_MAX,
        description="Writes with fewer live copies are refused (never more than the file's).",
    )
    chunk_bytes: int = Field(
        CHUNK_BYTES_DEFAULT, ge=CHUNK_BYTES_MIN, le=CHUNK_BYTES_MAX, description="Chunk size of new files, in bytes."
    )
    heartbeat_seconds: float = Field(1.0, ge=0.05, le=60, description="How often chunk servers report.")
    server_silent_seconds: float = Field(
        10.0, ge=0.2, description="A chunk server silent for so long is dead: its chunks are copied from elsewhere."
    )
    chunk_lease_seconds: float = Field(60.0, ge=1, le=3600, description="How long a write lease on a chunk lasts.")
    client_silent_seconds: float = Field(
        120.0, ge=1, description="A client silent for so long is gone: its open files are closed."
    )
    safe_mode_ratio: float = Field(
        0.999, ge=0, le=1, description="The share of chunks that must be reported before anything is copied or deleted."
    )
    repairs_per_server: int = Field(4, ge=1, le=64, description="Copies that one chunk server makes at a time.")
    deletions_per_heartbeat: int = Field(500, ge=1, le=10000, description="Chunks deleted per server and heartbeat.")
    checkpoint_records: int = Field(
        200_000, ge=1, description="A checkpoint is written when the log has so many records since the last one."
    )
    checkpoint_seconds: float = Field(
        3600.0, ge=1, description="A checkpoint is written after so long at the latest, if there is any new record."
    )
    takeover_when_refused: bool = Field(
        True,
        description="A leader whose address refuses connections is taken for dead at once; false where proxies answer "
        "for hosts.",
    )
    acknowledge: Literal["durable", "early"] = Field(
        "durable",
        description="early answers before the commit, and loses what it has promised when it dies: for drills only.",
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"
