"""The HTTP gateway: small reads by wrk, large bodies by curl against the client library; on one cluster in one run."""

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import cluster
from gfsclient.sync import FileSystem
from gfscluster import gateways, processes
from gfscluster.layout import Layout
from gfsprotocol.ids import KIB, MIB

SMALL_BYTES = 4 * KIB
SMALL_FILES = 200
WRK_SECONDS = 8
CONNECTIONS = 16
READS_AIM = 2000
RATIO_AIM = 0.7
_SCRIPT = """
local number = 0
request = function()
  number = (number + 7) % {files}
  return wrk.format("GET", "/v1/files/small/" .. number)
end
"""


def measure(directory: Path, size_bytes: int, rounds: int) -> list[dict[str, object]]:
    """Medians over ``rounds``: reads per second, bytes per second and their ratio to the library's, peak memory."""
    source, target = directory / "source", directory / "target"
    block = os.urandom(MIB)
    with source.open("wb") as file:
        for number in range(size_bytes // MIB):
            file.write(number.to_bytes(8, "little") + block[8:])
    with cluster.running(directory, gateways=1) as config, FileSystem.from_config(config) as files:
        layout = Layout(config.parent)
        base = gateways.address(layout, "gateway-1")
        rows = [_small_reads(directory, files, base, rounds)]
        rows += _large_bodies(source, target, files, base, rounds)
        (record,) = [each for each in processes.recorded(layout) if each.name == "gateway-1"]
        peak_mib = cluster.resident_bytes(record.pid) / MIB
        rows.append(_row("gateway: peak memory", f"{peak_mib:,.0f} MiB", "", "", 200))
    return rows


def _row(figure: str, value: str, bare: str, ratio: object, aim: object) -> dict[str, object]:
    return {"figure": figure, "value": value, "bare": bare, "ratio": ratio, "aim": aim}


def _small_reads(directory: Path, files: FileSystem, base: str, rounds: int) -> dict[str, object]:
    name = "gateway: small reads"
    wrk = shutil.which("wrk")
    if wrk is None:
        return _row(name, "not measured", "", "", READS_AIM) | {
            "reason": "there is no wrk (Debian: apt-get install wrk)"
        }
    files.mkdir("/small")
    for number in range(SMALL_FILES):
        files.write_bytes(f"/small/{number}", os.urandom(SMALL_BYTES))
    script = directory / "small.lua"
    script.write_text(_SCRIPT.format(files=SMALL_FILES))
    rates = [_wrk(wrk, script, base) for _ in range(rounds + 1)][1:]  # the first one warms up
    return _row(name, f"{statistics.median(rates):,.0f} /s", "", "", READS_AIM)


def _wrk(wrk: str, script: Path, base: str) -> float:
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{WRK_SECONDS}s", "-s", str(script), base]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"some reads failed:\n{told}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None, told
    return float(found[1])


def _large_bodies(source: Path, target: Path, files: FileSystem, base: str, rounds: int) -> list[dict[str, object]]:
    figures: dict[str, list[tuple[float, float]]] = {"gateway: upload": [], "gateway: download": []}
    for number in range(rounds):
        address = f"{base}/v1/files/http-{number}"
        library = _seconds(partial(files.put_file, source, f"/file-{number}"))
        web = _seconds(partial(_curl, "-T", str(source), address))
        figures["gateway: upload"].append((web, library))
        target.unlink(missing_ok=True)
        library = _seconds(partial(files.get_file, f"/file-{number}", target))
        target.unlink()
        web = _seconds(partial(_curl, "-o", str(target), address))
        figures["gateway: download"].append((web, library))
        files.remove(f"/file-{number}")
        files.remove(f"/http-{number}")
    size = source.stat().st_size
    source.unlink()
    target.unlink()
    return [
        _row(
            name,
            f"{statistics.median(size / web / 1e6 for web, _ in pairs):,.0f} MB/s",
            f"{statistics.median(size / library / 1e6 for _, library in pairs):,.0f} MB/s",
            round(statistics.median(library / web for web, library in pairs), 3),
            RATIO_AIM,
        )
        for name, pairs in figures.items()
    ]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _curl(*arguments: str) -> None:
    subprocess.run(["curl", "-sS", "--fail", *arguments], check=True, stdout=subprocess.DEVNULL)
