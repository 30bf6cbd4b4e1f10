"""Modes as chmod(1) takes them: octal, or symbolic as POSIX defines it (``u=rwX,go-w``)."""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import click

from gfsclient.cli.values import current_umask
from gfsclient.cli.walking import DIRECTORY, TYPE_MASK

Change = Callable[[int], int]
"""From a file's mode, with its type, to its new permission bits."""

SET_IDS: Final = 0o6000
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]+|[ugo]|))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo]|)")
_WHO: Final = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS: Final = {"r": 0o444, "w": 0o222, "x": 0o111, "s": SET_IDS, "t": 0o1000}
_COPIED: Final = {"u": 6, "g": 3, "o": 0}


class ModeChange(click.ParamType[Change]):
    """A mode on the command line."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Change:
        change = parse_mode(value, current_umask())
        if change is None:
            self.fail(f"'{value}' is not a mode, such as 640 or u=rw,go-w", param, ctx)
        return change


class _Action(NamedTuple):
    affected: int
    """The bits of the classes that are named; 0 if none is, which means all but those that the umask holds back."""
    operator: str
    what: str


def parse_mode(text: str, umask: int) -> Change | None:
    """What ``text`` does to a mode, or None if it is not a mode.

    As GNU chmod does it: a directory keeps its set-id bits unless they are named.
    """
    if re.fullmatch(r"[0-7]{1,4}", text):
        bits = int(text, 8)
        return lambda mode: bits | (mode & SET_IDS if _is_directory(mode) else 0)
    actions: list[_Action] = []
    for part in text.split(","):
        clause = _CLAUSE.fullmatch(part)
        if clause is None:
            return None
        affected = 0
        for letter in clause[1]:
            affected |= _WHO[letter]
        actions.extend(_Action(affected, operator, what) for operator, what in _ACTION.findall(clause[2]))

    def change(mode: int) -> int:
        for action in actions:
            mode = mode & TYPE_MASK | _apply(mode, action, umask)
        return mode & 0o7777

    return change


def _apply(mode: int, action: _Action, umask: int) -> int:
    """The permission bits after one action."""
    named = _named_bits(mode, action.what)
    mentioned = named & action.affected if action.affected else named
    untouchable = SET_IDS & ~mentioned if _is_directory(mode) else 0
    value = named & (action.affected or ~umask) & ~untouchable
    bits = mode & 0o7777
    if action.operator == "+":
        return bits | value
    if action.operator == "-":
        return bits & ~value
    preserved = (~action.affected if action.affected else 0) | untouchable
    return bits & preserved | value


def _named_bits(mode: int, what: str) -> int:
    """The bits that ``what`` means, for all classes."""
    if what in _COPIED:
        return (mode >> _COPIED[what] & 0o7) * 0o111
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 0o111 if _is_directory(mode) or mode & 0o111 else 0
        else:
            bits |= _BITS[letter]
    return bits


def _is_directory(mode: int) -> bool:
    return mode & TYPE_MASK == DIRECTORY
