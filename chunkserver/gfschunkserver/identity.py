"""``store.json``: whose a data directory is, and the highest epoch that was ever obeyed from it."""

from pathlib import Path
from typing import Final

import msgspec

from gfschunkserver.files import Files, write_atomically
from gfsprotocol.errors import UnsupportedFormat

NAME: Final = "store.json"
FORMAT_VERSION: Final = 1


class Identity(msgspec.Struct, frozen=True):
    """The content of a ``store.json``. Ids are hexadecimal, because a person may have to read them."""

    format_version: int
    cluster: str
    """Empty until a master has accepted the server."""
    server: str
    disk: str
    highest_epoch: int

    @property
    def cluster_id(self) -> bytes:
        return bytes.fromhex(self.cluster)

    @property
    def server_id(self) -> int:
        return int(self.server, 16)

    @property
    def disk_id(self) -> bytes:
        return bytes.fromhex(self.disk)


def new_identity(cluster: bytes, server: int, disk: bytes, highest_epoch: int) -> Identity:
    return Identity(FORMAT_VERSION, cluster.hex(), f"{server:016x}", disk.hex(), highest_epoch)


def read_identity(files: Files, directory: Path) -> Identity | None:
    """None for a directory that is not a store yet. UnsupportedFormat if the file is not one of ours."""
    path = directory / NAME
    if not files.exists(path):
        return None
    file = files.open(path)
    try:
        content = file.read(0, file.length())
    finally:
        file.close()
    try:
        identity = msgspec.json.decode(content, type=Identity)
        well_formed = len(identity.disk_id) == 16 and len(identity.cluster_id) in (0, 16) and identity.server_id > 0
    except (msgspec.DecodeError, ValueError) as error:
        raise UnsupportedFormat(f"{path} cannot be read: {error}") from error
    if identity.format_version != FORMAT_VERSION or not well_formed:
        raise UnsupportedFormat(f"{path} has a format that this program does not know")
    return identity


def write_identity(files: Files, directory: Path, identity: Identity) -> None:
    """Durable on return."""
    write_atomically(files, directory / NAME, msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")
