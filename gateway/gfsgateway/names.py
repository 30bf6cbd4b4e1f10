"""Names of users and groups, for interfaces that have names where the file system has numbers.

What the settings list comes first, then the system's own tables; a number that neither knows is shown as its digits,
and digits are taken for a number.
"""

import grp
import os
import pwd
import re
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from gfsclient.user import User
from gfsgateway.config import GatewayConfig
from gfsprotocol.errors import InvalidArgument

KEEP_SECONDS: Final = 60.0
KEPT_MAX: Final = 4096
_NUMBER: Final = re.compile("[0-9]{1,10}")

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Kept(Generic[_Key, _Value]):
    """Answers of a function, kept for a while: the system's tables may be a directory service far away."""

    def __init__(self, find: Callable[[_Key], _Value]) -> None:
        self._find = find
        self._values: dict[_Key, tuple[float, _Value]] = {}

    def __call__(self, key: _Key) -> _Value:
        now = time.monotonic()
        kept = self._values.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        value = self._find(key)
        if len(self._values) >= KEPT_MAX:
            self._values.clear()
        self._values[key] = (now + KEEP_SECONDS, value)
        return value


class Names:
    """Both directions, for users and groups."""

    def __init__(self, config: GatewayConfig) -> None:
        self._users = dict(map(_user_line, config.users))
        self._groups = dict(map(_group_line, config.groups))
        self._names_of_uids = {user[0]: name for name, user in self._users.items()}
        self._names_of_gids = {gid: name for name, gid in self._groups.items()}
        self._user_name = _Kept(_system_user_name)
        self._group_name = _Kept(_system_group_name)
        self._user = _Kept(_system_user)
        self._gid = _Kept(_system_gid)

    def user_name(self, uid: int) -> str:
        """The name of ``uid``; its digits if it has none."""
        return self._names_of_uids.get(uid) or self._user_name(uid)

    def group_name(self, gid: int) -> str:
        """The name of ``gid``; its digits if it has none."""
        return self._names_of_gids.get(gid) or self._group_name(gid)

    def user(self, name: str) -> User:
        """uid, gid and groups of a user. InvalidArgument if there is none of that name."""
        found = self._users.get(name) or self._user(name)
        if found is None:
            raise InvalidArgument(f"the gateway knows no user '{name}': its setting 'users' may name one")
        return found

    def uid(self, name: str) -> int:
        """The number of a user, who may be known by number only. InvalidArgument if there is none of that name."""
        return _number(name) if _NUMBER.fullmatch(name) and name not in self._users else self.user(name)[0]

    def gid(self, name: str) -> int:
        """The number of a group. InvalidArgument if there is none of that name."""
        if name in self._groups:
            return self._groups[name]
        found = _number(name) if _NUMBER.fullmatch(name) else self._gid(name)
        if found is None:
            raise InvalidArgument(f"the gateway knows no group '{name}': its setting 'groups' may name one")
        return found


def _user_line(line: str) -> tuple[str, User]:
    """``NAME=UID:GID:...``, which the settings have checked."""
    name, _, numbers = line.partition("=")
    return name, tuple(map(int, numbers.split(":")))


def _group_line(line: str) -> tuple[str, int]:
    name, _, number = line.partition("=")
    return name, int(number)


def _number(text: str) -> int:
    number = int(text)
    if number >= 2**32 - 1:
        raise InvalidArgument(f"{text} is no number of a user or group")
    return number


def _system_user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _system_group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def _system_user(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return (entry.pw_uid, entry.pw_gid, *(group for group in groups if group != entry.pw_gid))


def _system_gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
