"""What is done to the leader in the middle of a load."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from gfscluster import processes
from gfscluster.layout import Layout, read_shape

GFS: Final = Path(sys.executable).with_name("gfs")
AWAY_SECONDS: Final = 5.0
"""How long a master that was killed stays away."""


def hand_over() -> str:
    """Makes a standby the leader; what was done, for the report."""
    done = subprocess.run([GFS, "handover"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def kill_leader(directory: Path) -> str:
    """Kills the leading master of the cluster in ``directory``, and starts it again a little later; what was done."""
    layout = Layout(directory)
    status = json.loads(subprocess.run([GFS, "status", "--json"], capture_output=True, check=False).stdout)
    host, _, port = status["leader"].rpartition(":")
    name = next(name for name, place in read_shape(layout).addresses.items() if place == (host, int(port)))
    (record,) = [record for record in processes.recorded(layout) if record.name == name]
    processes.kill(record)
    time.sleep(AWAY_SECONDS)
    subprocess.run([GFS, "start", name, "--dir", directory], capture_output=True, check=True)
    return f"{name}, which led, was killed; after {AWAY_SECONDS:.0f} s it was started again"
