"""``gfsclient mount``."""

import click

from gfsclient.cli.session import Session
from gfsprotocol.errors import ConfigurationError


@click.command("mount")
@click.argument("places", nargs=-1, required=True, metavar="[SOURCE] MOUNTPOINT")
@click.option("-o", "options", multiple=True, metavar="OPTION,...", help="As for mount(8): see docs/mount.md.")
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
@click.option("--supervise", is_flag=True, help="Mount again when the mount's process dies.")
@click.pass_obj
def command(
    session: Session,
    places: tuple[str, ...],
    options: tuple[str, ...],
    foreground: bool,
    supervise: bool,
) -> int:
    """Makes the cluster's files appear below the directory MOUNTPOINT.

    SOURCE is gfs://host:port,host:port/path; without it, or without hosts, the configured cluster is mounted. Returns
    when the mount answers.
    """
    from dataclasses import replace
    from pathlib import Path

    from gfsclient.mount.mountpoint import prepare
    from gfsclient.mount.options import parse_options, parse_source

    if len(places) > 2:
        raise click.UsageError(f"got unexpected extra argument ({places[2]})")
    *sources, mountpoint = places
    parsed = parse_options(options)
    if supervise:
        parsed = replace(parsed, supervise=True)
    place = parse_source(sources[0] if sources else "")
    path = prepare(mountpoint, parsed.allow_other)
    try:
        from gfsclient.mount.daemon import Plan
        from gfsclient.mount.supervisor import start
    except ImportError as error:
        raise ConfigurationError(
            f"mounting needs the Python package pyfuse3 ({error.name or error} is missing): pip install 'gfs[mount]', "
            "for which Debian has the packages fuse3, libfuse3-dev, pkg-config and gcc"
        ) from error
    config = Session(
        session.config_file or (Path(parsed.config_file) if parsed.config_file else None),
        list(place.masters) or session.masters,
        session.deadline_seconds or parsed.deadline_seconds,
    ).config()
    return start(Plan(config, place.subtree, path, parsed), foreground)
