"""In whose name a program's request goes to the master: FUSE tells uid, gid and pid, the groups are looked up."""

from pathlib import Path
from typing import Final

from gfsclient.user import GROUPS_MAX, User

ROOT: Final[User] = (0, 0)
"""What the mount does on its own account, after the kernel or the master has checked the caller."""


class Callers:
    """Finds the supplementary groups of processes.

    They are read for each request: a process may change them at any time, as su and servers of many users do, and
    reading them takes a fraction of a request to the master.
    """

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._processes = processes

    def user(self, uid: int, gid: int, pid: int) -> User:
        """The caller's uid, gid and groups; without groups if it has ended, or is in a pid namespace of its own."""
        if not uid:
            return uid, gid  # what root may do does not depend on groups
        return (uid, gid, *self._groups(pid, gid))

    def _groups(self, pid: int, gid: int) -> list[int]:
        try:
            status = (self._processes / str(pid) / "status").read_text("ascii", "replace")
        except OSError:
            return []
        _, _, rest = status.partition("\nGroups:")
        groups = [int(number) for number in rest.partition("\n")[0].split()]
        return [group for group in groups if group != gid][:GROUPS_MAX]
