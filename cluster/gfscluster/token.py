"""``gfs token``: bearer tokens for the gateways."""

import os
import pwd
import re
import time
from pathlib import Path
from typing import Final

import click

from gfsclient.user import User
from gfscluster import current, options
from gfscluster.layout import Layout
from gfsgateway import tokens
from gfsprotocol.errors import ConfigurationError, InvalidArgument
from gfsprotocol.settings import read_secret

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPIRES_DEFAULT: Final = "1d"


@click.group("token")
def command() -> None:
    """Bearer tokens: whoever has one acts through a gateway as the user that it is for."""


@command.command("create")
@click.option("--user", required=True, help="A user of this machine, or a uid, or UID:GID and more groups with colons.")
@click.option("--paths", help="Only for these paths and what is below them, with commas.  [default: all]")
@click.option("--expires", default=_EXPIRES_DEFAULT, show_default=True, help="After how long: 30m, 12h, 1d.")
@click.option(
    "--dir",
    "directory",
    type=options.DIRECTORY,
    help="The directory of gfs up.  [default: the cluster that was started last]",
)
def create(user: str, paths: str | None, expires: str, directory: Path | None) -> int:
    """Prints a token for all gateways of a cluster. It cannot be taken back, but by another gateway-secret."""
    place = _chosen(directory)
    key = tokens.token_key(read_secret(place.gateway_secret_file))
    click.echo(tokens.sign(key, _user(user), _prefixes(paths), int(time.time()) + _seconds(expires)))
    return 0


def _chosen(directory: Path | None) -> Layout:
    if directory is not None:
        return options.existing(directory)
    file = current.client_file()
    if file is None:
        raise ConfigurationError("no cluster was started on this account: say which one with --dir")
    return options.existing(file.parent)


def _prefixes(paths: str | None) -> tuple[str, ...]:
    """The paths that are named. Naming none is no token for all: it may be a variable of a script that is not set."""
    if paths is None:
        return ()
    prefixes = tuple(paths.split(","))
    if not all(prefixes):
        raise InvalidArgument(f"--paths '{paths}' names an empty path: without --paths a token is for all of them")
    return prefixes


def _user(text: str) -> User:
    """uid, gid and groups; what is not said is looked up on this machine."""
    numbers = text.split(":")
    if len(numbers) > 1:
        if not all(re.fullmatch("[0-9]{1,10}", number) for number in numbers):
            raise InvalidArgument(f"'{text}' is not UID:GID")
        return tuple(map(int, numbers))
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError) as error:
        hint = f"give its group, too: {text}:GID" if text.isdecimal() else "give a UID:GID"
        raise InvalidArgument(f"this machine has no user {text}: {hint}") from error
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return (entry.pw_uid, entry.pw_gid, *(group for group in groups if group != entry.pw_gid))


def _seconds(text: str) -> int:
    match = re.fullmatch("([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise InvalidArgument(f"'{text}' is not a time such as 30m, 12h or 1d")
    return int(match[1]) * _UNITS[match[2]]
