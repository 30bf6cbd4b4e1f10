"""Options that several of the operator's commands have."""

from pathlib import Path
from typing import Final

import click

from gfscluster.layout import Layout
from gfsprotocol.errors import ConfigurationError

DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)

made_directory = click.option(
    "--dir",
    "directory",
    type=DIRECTORY,
    default="cluster-data",
    show_default=True,
    help="The directory that gfs up was given.",
)
directory = click.option("--dir", "directory", type=DIRECTORY, help="The directory of gfs up.")
config = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="A client.toml.")


def existing(directory: Path) -> Layout:
    """The cluster in a directory; ConfigurationError if there is none."""
    place = Layout(directory.absolute())
    if not place.exists():
        raise ConfigurationError(f"there is no cluster in {place.directory}")
    return place
