"""``mount.gfs``: what mount(8) calls for a line of fstab, as ``mount.gfs SOURCE DIRECTORY [-o OPTIONS]``."""

import re
import sys
from typing import Final

from gfsclient.cli.__main__ import main as gfsclient_main

_FLAGS: Final = re.compile("-[fnsv]+")
_VALUED: Final = frozenset({"-t", "-N"})
"""Options of mount(8) that have a value and mean nothing here; -s, -n and -v mean nothing either."""


def arguments(given: list[str]) -> list[str]:
    """The arguments of ``gfsclient`` for those of mount(8)."""
    places: list[str] = []
    options: list[str] = []
    rest = iter(given)
    for argument in rest:
        if argument == "-o":
            options += ["-o", next(rest, "")]
        elif argument in _VALUED:
            next(rest, "")
        elif not argument.startswith("-"):
            places.append(argument)
    return ["mount", *options, "--", *places]


def is_fake(given: list[str]) -> bool:
    """Whether mount(8) is only to look as if it mounted (``mount -f``)."""
    return any(_FLAGS.fullmatch(argument) and "f" in argument for argument in given)


def main() -> int:
    """Mounts, in the background."""
    if is_fake(sys.argv[1:]):
        return 0
    sys.argv[1:] = arguments(sys.argv[1:])
    return gfsclient_main()
