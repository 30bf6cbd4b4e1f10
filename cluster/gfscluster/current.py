"""Which cluster is meant when nobody says: the one that was started last on this account, by its client.toml."""

import os
from pathlib import Path

from gfsclient.config import current_file
from gfscluster.layout import Layout


def point_to(place: Layout) -> None:
    """Makes this cluster the current one."""
    file = current_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".current.{os.getpid()}")
    temporary.write_text(f"{place.client_file}\n")
    temporary.replace(file)


def client_file() -> Path | None:
    """The current cluster's client.toml."""
    try:
        return Path(current_file().read_text().strip())
    except FileNotFoundError:
        return None


def forget(place: Layout) -> None:
    """Removes the pointer if it names this cluster."""
    if client_file() == place.client_file:
        current_file().unlink(missing_ok=True)
