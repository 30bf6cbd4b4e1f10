"""Settings of a gateway."""

import ipaddress
import re
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from gfsprotocol.ids import FILE_BYTES_MAX, MIB
from gfsprotocol.settings import LogLevel, Settings

_NUMBER: Final = "(0|[1-9][0-9]{0,8})"
_USER_LINE: Final = re.compile(rf"[^\s=/:]+={_NUMBER}(:{_NUMBER})+")
_GROUP_LINE: Final = re.compile(rf"[^\s=/:]+={_NUMBER}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


@lru_cache(64)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class GatewayConfig(Settings):
    """A gateway: it answers HTTP requests by means of the client library."""

    model_config = SettingsConfigDict(env_prefix="GFS_GATEWAY_")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(9600, ge=0, le=65535, description="The port to listen on; 0 takes any free one.")
    client_file: Path = Field(description="The cluster's client.toml: its masters and the clients' key.")
    token_secret_file: Path | None = Field(
        None, description="What bearer tokens are signed with, hexadecimal; needed to listen beyond this machine."
    )
    default_user: list[int] = Field(
        [],
        description="uid, gid and groups of whoever sends no token, which only this machine may; empty: the process's.",
    )
    users: list[str] = Field(
        [],
        description="Names of users for WebHDFS, each 'alice=1000:1000:27': uid, gid and groups; the system's users "
        "have theirs.",
    )
    groups: list[str] = Field(
        [], description="Names of groups for WebHDFS, each 'staff=27'; the system's groups have theirs."
    )
    public_url: str = Field(
        "",
        description="How clients reach the gateway, for redirects: https://files.example.com; empty: as they did.",
    )
    tls_certificate: Path | None = Field(None, description="A PEM file with the certificate chain: HTTPS only, then.")
    tls_key: Path | None = Field(None, description="The PEM file of the certificate's private key.")
    access_log: Path | None = Field(None, description="A file for one line of JSON per request; none if not given.")
    header_seconds: float = Field(
        20.0, gt=0, le=3600, description="How long a connection may take to send a request's head, or be idle."
    )
    stall_seconds: float = Field(
        30.0, gt=0, le=3600, description="How long a body may make no progress, in either direction."
    )
    queue_seconds: float = Field(30.0, gt=0, le=600, description="How long a transfer may wait for its turn.")
    stop_seconds: float = Field(10.0, gt=0, le=600, description="How long a stopping gateway lets requests finish.")
    connections_max: int = Field(1024, ge=1, le=100_000, description="Connections at a time.")
    transfers_max: int = Field(128, ge=1, le=4096, description="Large bodies under way at a time; the others wait.")
    waiting_max: int = Field(1024, ge=0, le=100_000, description="Transfers that may wait; more are refused (429).")
    transfer_bytes: int = Field(
        96 * MIB, ge=16 * MIB, description="Memory for bodies under way, shared by the transfers."
    )
    upload_bytes_max: int = Field(FILE_BYTES_MAX, ge=1, description="The largest body of an upload.")
    listing_entries_max: int = Field(
        100_000, ge=1, description="The largest directory that is listed in another order than by name."
    )
    upload_keep_seconds: int = Field(
        7 * 86_400, ge=60, description="A resumable upload untouched for so long is removed."
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if not is_loopback(self.host) and self.token_secret_file is None:
            raise ValueError(f"listening on '{self.host}' needs a token_secret_file: others can reach it")
        if self.default_user and len(self.default_user) < 2:
            raise ValueError("default_user needs a uid and a gid")
        if any(not 0 <= number < 2**32 for number in self.default_user):
            raise ValueError("default_user holds a number that is no uid or gid")
        for line in self.users:
            if not _USER_LINE.fullmatch(line):
                raise ValueError(f"users: '{line}' is not NAME=UID:GID")
        for line in self.groups:
            if not _GROUP_LINE.fullmatch(line):
                raise ValueError(f"groups: '{line}' is not NAME=GID")
        if self.public_url and not _URL.fullmatch(self.public_url):
            raise ValueError(f"public_url: '{self.public_url}' is not http://HOST or https://HOST, without a path")
        return self
