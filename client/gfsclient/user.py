"""In whose name a client acts."""

import os
from typing import NamedTuple

from gfsprotocol.errors import InvalidArgument

User = tuple[int, ...]
"""uid, gid and supplementary groups."""

GROUPS_MAX = 1024


class Acting(NamedTuple):
    """In whose name something is asked, and what is to keep paths where they belong."""

    user: User
    confined: tuple[bytes, ...] = ()
    """If there are any, directories: no symbolic link is followed in a path but above these."""


def process_user() -> User:
    """The effective user and groups of this process."""
    uid, gid = os.geteuid(), os.getegid()
    return uid, gid, *(group for group in os.getgroups()[:GROUPS_MAX] if group != gid)


def checked(user: User) -> User:
    """``user`` if it has at least a uid and a gid, all of them possible; else InvalidArgument."""
    if len(user) < 2 or any(not 0 <= number < 2**32 for number in user):
        raise InvalidArgument(f"{user} is not a uid, a gid and groups")
    return tuple(user)
