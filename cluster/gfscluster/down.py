"""``gfs down``: ends the processes of a cluster on this host."""

from pathlib import Path

import click

from gfscluster import current, options, processes


@click.command("down")
@options.made_directory
@click.option(
    "--stop-seconds",
    type=float,
    default=processes.STOP_SECONDS,
    show_default=True,
    help="How long gateways, then chunk servers, then masters, may take before they are killed.",
)
def command(directory: Path, stop_seconds: float) -> int:
    """Stops a cluster on this host: gateways first, then chunk servers, then masters.

    Only processes that gfs up or gfs start recorded in the directory are ended.
    """
    place = options.existing(directory)
    records = processes.recorded(place)
    running = [record for record in records if processes.is_running(record)]
    for record in processes.stop(place, records, stop_seconds):
        click.echo(f"{record.name} did not stop in time and was killed", err=True)
    current.forget(place)
    if running:
        click.echo(f"Stopped {', '.join(record.name for record in running)}.")
    else:
        click.echo(f"Nothing was running in {place.directory}.")
    return 0
