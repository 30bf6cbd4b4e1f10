"""One file per mount point in the user's state directory: locked while its processes live; and the log beside it."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO, Final

from blake3 import blake3

from gfsclient.config import current_file

POLL_SECONDS: Final = 0.02


def lock_file(mountpoint: str) -> Path:
    """The file that the processes of a mount keep locked; named after the mount point."""
    name = os.path.basename(mountpoint) or "root"
    digest = blake3(os.fsencode(mountpoint)).hexdigest()[:12]
    return current_file().with_name("mounts") / f"{name}-{digest}.lock"


def log_file(mountpoint: str) -> Path:
    return lock_file(mountpoint).with_suffix(".log")


def lock(mountpoint: str) -> IO[bytes] | None:
    """The mount's lock, held until the file and its copies in forked children are closed; None if another has it."""
    path = lock_file(mountpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def wait_for_end(mountpoint: str, seconds: float) -> bool:
    """Waits until no process of the mount lives any more; whether it came to that in time."""
    deadline = time.monotonic() + seconds
    while True:
        if not lock_file(mountpoint).exists():
            return True
        held = lock(mountpoint)
        if held is not None:
            held.close()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
