"""Starting from a checkpoint with a million files, from the start of the process to the first state that can serve."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import memory
from gfsmaster.checkpoint import encode
from gfsmaster.checkpoints import CheckpointWriter
from gfsmaster.databases import Access
from gfsmaster.journal import ThreadedJournal
from gfsmaster.oplog import GENESIS_HASH, Batch, OperationLog, chain
from gfsmaster.state import State
from gfsprotocol.channel import SystemClock
from gfsstandby.follower import Follower


def prepare(directory: Path) -> None:
    """A database with a checkpoint of :data:`bench.memory.FILES` files, after a row that stands for their records."""
    state = memory.filled()
    log = OperationLog(_url(directory), "bench")
    log.prepare(genesis=True)
    won = log.campaign(log.leadership(), "bench:1")
    assert won is not None
    last_hash = chain(GENESIS_HASH, 1, state.sequence, 1, b"")
    log.append(Batch(1, state.sequence, 1, last_hash, b""), GENESIS_HASH)
    log.close()
    background = OperationLog(_url(directory), "bench", Access.BACKGROUND)
    writer = CheckpointWriter(background.checkpoints, "bench", state.sequence, lambda _: None)
    for part in encode(state):
        writer.write(part)
    writer.publish(1, last_hash, state.digest())
    background.close()


def start(directory: Path) -> float:
    """Seconds from the start of this process until the state is there."""
    journal = ThreadedJournal(OperationLog(_url(directory), "bench"))
    journal.log.prepare(genesis=False)

    async def follow() -> State:
        follower = Follower(journal, SystemClock())
        await follower.catch_up()
        return follower.state

    state = asyncio.run(follow())
    assert len(state.inodes) > memory.FILES
    seconds = time.time() - psutil.Process().create_time()
    asyncio.run(journal.close())
    return seconds


def _url(directory: Path) -> str:
    return f"sqlite:///{directory / 'journal.sqlite'}"


def measure(directory: Path) -> list[dict[str, object]]:
    """One row: seconds."""
    this = [sys.executable, "-m", "bench.restart"]
    subprocess.run([*this, "prepare", str(directory)], check=True)
    done = subprocess.run([*this, "start", str(directory)], check=True, capture_output=True, text=True)
    size = os.path.getsize(directory / "journal.sqlite")
    return [
        {
            "figure": "restart from a checkpoint",
            "value": f"{float(done.stdout):.2f} s",
            "bare": f"{size / 1e6:,.0f} MB",
            "ratio": "",
            "aim": "5 s",
        }
    ]


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        print(start(Path(sys.argv[2])))
