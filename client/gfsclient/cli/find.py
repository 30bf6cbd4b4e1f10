"""``gfsclient find``."""

import fnmatch
import grp
import pwd
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gfsclient.cli.listing import as_json, type_name
from gfsclient.cli.output import json_line, line, shown
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import OCTAL, REMOTE
from gfsclient.cli.walking import Found, is_directory, walk

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

Test = Callable[[Found], bool]
TYPES = {"f": "file", "d": "directory", "l": "symlink"}
SIZE_UNITS = {"": 512, "b": 512, "c": 1, "k": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
ID_DIGITS_MAX = 10
DAY_NS = 86400 * 10**9
MINUTE_NS = 60 * 10**9


class Compared(click.ParamType[tuple[str, int, str]]):
    """A number as find(1) has it: ``+N`` more than, ``-N`` less than, ``N`` exactly; with a unit for sizes."""

    name = "[+-]N"

    def __init__(self, units: str = "") -> None:
        self._pattern = re.compile(rf"([+-]?)(\d{{1,40}})([{units}]?)" if units else r"([+-]?)(\d{1,40})()")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, str]:
        match = self._pattern.fullmatch(value)
        if match is None:
            self.fail(f"'{value}' is not a number such as 3, +3 or -3", param, ctx)
        return match[1], int(match[2]), match[3]


@click.command("find")
@click.argument("paths", nargs=-1, type=REMOTE, metavar="[PATH...]")
@click.option("-name", "--name", help="The name matches this pattern of the shell.")
@click.option("-iname", "--iname", help="As -name, whatever the case.")
@click.option("-path", "--path", "whole", help="The whole path matches this pattern of the shell.")
@click.option("-type", "--type", "kind", type=click.Choice(list(TYPES)), help="File, directory or symbolic link.")
@click.option(
    "-size", "--size", type=Compared("bckMGT"), help="Size in b (512 bytes, the default), c (1), k, M, G or T."
)
@click.option("-mtime", "--mtime", type=Compared(), help="Days since the content changed.")
@click.option("-mmin", "--mmin", type=Compared(), help="Minutes since the content changed.")
@click.option("-newer", "--newer", type=REMOTE, help="Changed after this file in the cluster.")
@click.option("-user", "--user", help="The owner, by name or number.")
@click.option("-group", "--group", help="The group, by name or number.")
@click.option("-perm", "--perm", type=OCTAL, help="The permission bits are exactly these.")
@click.option("-empty", "--empty", is_flag=True, help="Files without content.")
@click.option("-mindepth", "--mindepth", type=click.IntRange(0), default=0, help="Not above this depth.")
@click.option("-maxdepth", "--maxdepth", type=click.IntRange(0), help="Not below this depth.")
@click.option("-print0", "--print0", is_flag=True, help="A NUL after each path, for xargs -0.")
@click.option("--json", "json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    /,
    paths: tuple[str, ...],
    mindepth: int,
    maxdepth: int | None,
    print0: bool,
    json: bool,
    newer: str | None,
    **wanted: Any,
) -> None:
    """Finds files and directories that pass all the tests, below PATH (by default the root)."""
    newer_ns = (await files.stat(newer)).modified_ns if newer is not None else None
    tests = _tests(newer_ns=newer_ns, **wanted)
    for path in paths or ("/",):
        with failures.of(path):
            async for place in walk(files, failures, path, maxdepth):
                if place.depth < mindepth or not all(test(place) for test in tests):
                    continue
                if json:
                    json_line(as_json(place.path, place.attributes))
                elif print0:
                    line(place.path, end="\0")
                else:
                    line(shown(place.path))


def _tests(
    name: str | None,
    iname: str | None,
    whole: str | None,
    kind: str | None,
    size: tuple[str, int, str] | None,
    mtime: tuple[str, int, str] | None,
    mmin: tuple[str, int, str] | None,
    newer_ns: int | None,
    user: str | None,
    group: str | None,
    perm: int | None,
    empty: bool,
) -> list[Test]:
    now_ns = time.time_ns()
    tests: list[Test] = []
    if name is not None:
        tests.append(lambda place: fnmatch.fnmatchcase(_last_name(place), name))
    if iname is not None:
        lowered = iname.lower()
        tests.append(lambda place: fnmatch.fnmatchcase(_last_name(place).lower(), lowered))
    if whole is not None:
        tests.append(lambda place: fnmatch.fnmatchcase(place.path, whole))
    if kind is not None:
        tests.append(lambda place: type_name(place.attributes) == TYPES[kind])
    if size is not None:
        unit = SIZE_UNITS[size[2]]
        tests.append(lambda place: _compare(size, -(-place.attributes.size // unit)))
    if mtime is not None:
        tests.append(lambda place: _compare(mtime, (now_ns - place.attributes.modified_ns) // DAY_NS))
    if mmin is not None:
        tests.append(lambda place: _compare(mmin, (now_ns - place.attributes.modified_ns) // MINUTE_NS))
    if newer_ns is not None:
        tests.append(lambda place: place.attributes.modified_ns > newer_ns)
    if user is not None:
        uid = _number(user, lambda text: pwd.getpwnam(text).pw_uid, "-user")
        tests.append(lambda place: place.attributes.uid == uid)
    if group is not None:
        gid = _number(group, lambda text: grp.getgrnam(text).gr_gid, "-group")
        tests.append(lambda place: place.attributes.gid == gid)
    if perm is not None:
        tests.append(lambda place: place.attributes.mode & 0o7777 == perm)
    if empty:
        tests.append(lambda place: not is_directory(place.attributes) and place.attributes.size == 0)
    return tests


def _last_name(place: Found) -> str:
    return place.name.rstrip("/").rpartition("/")[2] or "/"


def _compare(wanted: tuple[str, int, str], actual: int) -> bool:
    sign, number, _ = wanted
    if sign == "+":
        return actual > number
    return actual < number if sign == "-" else actual == number


def _number(text: str, look_up: Callable[[str], int], option: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX:
        return int(text)
    try:
        return look_up(text)
    except KeyError:
        raise click.BadParameter(f"'{text}' is not known on this machine", param_hint=option) from None
