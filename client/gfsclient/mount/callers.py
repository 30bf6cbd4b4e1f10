"""In whose name a program's request goes to the master: FUSE tells uid, gid and pid, the groups are looked up."""

import time
from pathlib import Path
from typing import Final

from gfsclient.user import GROUPS_MAX, User

ROOT: Final[User] = (0, 0)
"""What the mount does on its own account, after the kernel or the master has checked the caller."""
KEPT_SECONDS: Final = 1.0
CALLERS_MAX: Final = 1024


class Callers:
    """Supplementary groups of processes, kept for a second each, because a program makes many calls in a row."""

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._processes = processes
        self._known: dict[tuple[int, int, int], tuple[float, User]] = {}

    def user(self, uid: int, gid: int, pid: int) -> User:
        """The caller's uid, gid and groups; without groups if it has ended, or is in a pid namespace of its own."""
        if not uid:
            return uid, gid  # what root may do does not depend on groups
        key, now = (pid, uid, gid), time.monotonic()
        found = self._known.get(key)
        if found is not None and now < found[0]:
            return found[1]
        user = (uid, gid, *self._groups(pid, gid))
        if len(self._known) >= CALLERS_MAX:
            self._known.clear()
        self._known[key] = (now + KEPT_SECONDS, user)
        return user

    def _groups(self, pid: int, gid: int) -> list[int]:
        try:
            status = (self._processes / str(pid) / "status").read_text("ascii", "replace")
        except OSError:
            return []
        _, _, rest = status.partition("\nGroups:")
        groups = [int(number) for number in rest.partition("\n")[0].split()]
        return [group for group in groups if group != gid][:GROUPS_MAX]
