"""put with three replicas against a bare chain, get against a bare sendfile, each pair in turn in one run."""

import os
import statistics
import time
from pathlib import Path

from bench import bare, cluster
from gfsclient.sync import FileSystem
from gfsprotocol.ids import MIB


def measure(directory: Path, size_bytes: int, rounds: int) -> list[dict[str, object]]:
    """Medians over ``rounds`` of bytes per second and of the ratio to the bare twin."""
    source, target = directory / "source", directory / "target"
    block = os.urandom(MIB)
    with source.open("wb") as file:
        for number in range(size_bytes // MIB):
            file.write(number.to_bytes(8, "little") + block[8:])
    figures: dict[str, list[tuple[float, float]]] = {"put": [], "get to a file": [], "get to memory": []}
    with cluster.running(directory) as config, FileSystem.from_config(config) as fs:
        for number in range(rounds):
            bare_seconds = bare.chain_seconds(directory, size_bytes)
            begun = time.perf_counter()
            fs.put_file(source, f"/file-{number}")
            figures["put"].append((time.perf_counter() - begun, bare_seconds))

            target.unlink(missing_ok=True)
            bare_seconds = bare.sendfile_seconds(source, target)
            target.unlink()
            begun = time.perf_counter()
            fs.get_file(f"/file-{number}", target)
            figures["get to a file"].append((time.perf_counter() - begun, bare_seconds))

            bare_seconds = bare.sendfile_seconds(source)
            begun = time.perf_counter()
            with fs.open(f"/file-{number}") as remote:
                buffer = memoryview(bytearray(8 * MIB))
                while remote.readinto(buffer):
                    pass
            figures["get to memory"].append((time.perf_counter() - begun, bare_seconds))
            fs.remove(f"/file-{number}")
    source.unlink()
    target.unlink()
    return [
        {
            "figure": name,
            "value": f"{statistics.median(size_bytes / own / 1e6 for own, _ in pairs):,.0f} MB/s",
            "bare": f"{statistics.median(size_bytes / other / 1e6 for _, other in pairs):,.0f} MB/s",
            "ratio": round(statistics.median(other / own for own, other in pairs), 3),
            "aim": 0.6,
        }
        for name, pairs in figures.items()
    ]
