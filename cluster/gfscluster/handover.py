"""``gfs handover``: a planned change of the leading master."""

import asyncio
from pathlib import Path

import click

from gfscluster import options, probe
from gfscluster.status import chosen_config
from gfsprotocol.errors import RemoteProtocolError
from gfsprotocol.messages import HandedOver, Handover

ASK_SECONDS = 30.0


@click.command("handover")
@click.option("--to", default="", help="The standby that is to lead, by name.  [default: the one that is nearest]")
@options.directory
@options.config
def command(to: str, directory: Path | None, config: Path | None) -> int:
    """Makes a standby the leader: the old one commits what it has promised and gives its epoch back.

    No one waits for a lease, and clients notice a short pause. The old leader stays as a standby.
    """
    settings = chosen_config(directory, config)
    answer = asyncio.run(probe.ask_leader(settings.masters, settings.key_bytes, Handover(to), ASK_SECONDS))
    if not isinstance(answer, HandedOver):
        raise RemoteProtocolError(f"the master answers a {type(answer).__name__} to the handover")
    click.echo(f"{answer.node} at {answer.address} takes over.")
    return 0
