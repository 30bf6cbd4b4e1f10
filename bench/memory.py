"""The master's memory per file with one chunk and three replicas, at a million files, in a process of its own."""

import gc
import itertools
import os
import subprocess
import sys
from pathlib import Path

from gfsmaster import operations as op
from gfsmaster.fleet import Fleet
from gfsmaster.state import State
from gfsprotocol import messages as msg

FILES = 1_000_000
FILES_PER_DIRECTORY = 1000
CLIENT = b"c" * 16


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fill() -> float:
    """Bytes of resident memory per file."""
    state = State()
    fleet = Fleet(state)
    gc.collect()
    before = resident_bytes()
    _fill(state, fleet)
    gc.collect()
    return (resident_bytes() - before) / FILES


def filled() -> State:
    """A state with FILES files."""
    state = State()
    _fill(state, Fleet(state))
    return state


def _fill(state: State, fleet: Fleet) -> None:
    """By running the very operations that clients cause."""
    for number in range(5):
        fleet.register(msg.Register(number + 1, b"", "host", 9500 + number, (), 0, 0), 0.0)
    replica_sets = list(itertools.combinations(fleet.servers, 3))
    state.apply(op.Record(1, (op.Genesis(b"x" * 16, op.LOG_FORMAT, 0o777, 0, 0, 3, 1 << 26),)))
    directory = 0
    for number in range(FILES):
        if number % FILES_PER_DIRECTORY == 0:
            directory = state.inodes.next_id()
            name = b"directory-%04d" % (number // FILES_PER_DIRECTORY)
            state.apply(op.Record(2 + number, (op.MakeDirectory(1, name, directory, 0o755, 0, 0, 3, 1 << 26),)))
            state.digest()
        inode, chunk = state.inodes.next_id(), state.chunks.next_id()
        operations = (
            op.MakeFile(directory, b"part-%08d.parquet" % number, inode, 0o644, 1000, 1000, 3, 1 << 26, CLIENT),
            op.AddChunk(inode, 0, chunk),
            op.RecordLengths(inode, (msg.ChunkLength(0, chunk, 5_000_000, 1),), 5_000_000, 3 + number),
            op.CloseWriter(inode, CLIENT, frees_unused=True),
        )
        state.apply(op.Record(2 + number, operations, CLIENT, number + 1, max(1, number - 100)))
        fleet.set_members(state.chunks.slot_of(chunk), replica_sets[number % len(replica_sets)])


def measure() -> list[dict[str, object]]:
    """One row: bytes per file."""
    done = subprocess.run([sys.executable, "-m", "bench.memory"], check=True, capture_output=True, text=True)
    return [
        {
            "figure": "master's memory per file",
            "value": f"{float(done.stdout):.0f} bytes",
            "bare": "HDFS 239",
            "ratio": "",
            "aim": 400,
        }
    ]


if __name__ == "__main__":
    print(fill())
