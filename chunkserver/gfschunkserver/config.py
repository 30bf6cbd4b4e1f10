"""Settings of a chunk server."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from gfsprotocol.ids import GIB, MIB
from gfsprotocol.settings import Addresses, LogLevel, Settings


class ChunkServerConfig(Settings):
    """A chunk server: it stores replicas of chunks in its directories and obeys the leading master."""

    model_config = SettingsConfigDict(env_prefix="GFS_CHUNKSERVER_")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(9500, ge=0, le=65535, description="The port to listen on; 0 takes any free one.")
    advertised_host: str = Field(
        "", description="The address under which others reach this server; empty means the same as host."
    )
    directories: list[Path] = Field(min_length=1, description="Data directories, one per disk.")
    masters: Addresses = Field(min_length=1, description="host:port of all master nodes.")
    secret_file: Path = Field(description="The cluster's secret, hexadecimal; masters need the same.")
    rack: str = Field("", description="Where the server stands: copies of a chunk go to different racks.")
    heartbeat_seconds: float = Field(
        1.0, ge=0.05, le=60, description="How often to report to a master that does not say how often."
    )
    reserve_bytes: int = Field(
        1 * GIB, ge=0, description="Space left free on each disk, for the journal and for deletions."
    )
    connections_max: int = Field(256, ge=4, le=4096, description="Bulk connections at a time.")
    journal_segment_bytes: int = Field(
        64 * MIB, ge=64 * 1024, le=1 * GIB, description="Size of a journal segment; up to three exist at a time."
    )
    scrub_bytes_per_second: int = Field(
        8 * MIB, ge=0, description="How fast stored chunks are verified in the background; 0 for never."
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("directories")
    @classmethod
    def _distinct(cls, directories: list[Path]) -> list[Path]:
        if len({directory.absolute() for directory in directories}) != len(directories):
            raise ValueError("a directory is named twice")
        return directories
