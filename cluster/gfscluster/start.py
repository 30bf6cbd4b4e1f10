"""``gfs start``: one process of a cluster on this host, again."""

from pathlib import Path

import click

from gfscluster import layout, options, processes, startup
from gfsprotocol.errors import ConfigurationError, DirectoryInUse


@click.command("start")
@click.argument("name")
@options.made_directory
def command(name: str, directory: Path) -> int:
    """Starts the process NAME (master-1, chunkserver-2, gateway-1, ...) of a cluster made by gfs up, after it died.

    Returns at once; "gfs status" shows when it takes part again.
    """
    place = options.existing(directory)
    shape = layout.read_shape(place)
    if name not in shape.addresses:
        raise ConfigurationError(f"the cluster has no process {name}, but {', '.join(shape.addresses)}")
    if any(record.name == name and processes.is_running(record) for record in processes.recorded(place)):
        raise DirectoryInUse(f"{name} is running")
    startup.check_ports(shape, only=name)
    child = processes.start(place, name)
    click.echo(f"Started {name} as process {child.pid}.")
    return 0
