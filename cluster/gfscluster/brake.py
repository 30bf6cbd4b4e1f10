"""``gfs brake``: the brake that holds back suspicious mass deletions."""

import asyncio
from pathlib import Path

import click

from gfscluster import options, probe
from gfscluster.status import ASK_SECONDS, chosen_config
from gfsprotocol.errors import RemoteProtocolError
from gfsprotocol.messages import Count, ReleaseBrake


@click.group("brake")
def command() -> None:
    """Deletions that the master holds back until a person has looked; "gfs status" tells why."""


@command.command("release")
@options.directory
@options.config
def release(directory: Path | None, config: Path | None) -> int:
    """Lets the deletions that are held back go on."""
    settings = chosen_config(directory, config)
    answer = asyncio.run(probe.ask_leader(settings.masters, settings.key_bytes, ReleaseBrake(), ASK_SECONDS))
    if not isinstance(answer, Count):
        raise RemoteProtocolError(f"the master answers a {type(answer).__name__} instead of a count")
    click.echo(f"{answer.count} deletions go on." if answer.count else "No deletion was held back.")
    return 0
