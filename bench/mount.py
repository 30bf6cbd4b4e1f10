"""The mount against MooseFS's and against the local disk, in turn in one run; both clusters keep three copies.

Where MooseFS is missing, the rows say so and have the local disk only.
"""

import contextlib
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import cluster, moosefs, workload

AIMS = {"creates, 4 KiB, 1 proc.": 2.0, "creates, 4 KiB, 4 proc.": 2.0, "cold 4 KiB reads": 2.0,
        "cold sequential read": 2.0, "random 4 KiB reads": 2.0}  # fmt: skip
"""Times MooseFS; of what is not named, 1."""
GFSCLIENT = cluster.GFS.with_name("gfsclient")


@contextlib.contextmanager
def _mounted(directory: Path) -> Iterator[Path]:
    """The mount of a cluster of its own."""
    directory.mkdir()
    point = directory / "mnt"
    point.mkdir()
    with cluster.running(directory) as config:
        environment = os.environ | {"GFS_CONFIG": str(config), "XDG_STATE_HOME": str(directory / "state")}
        subprocess.run([GFSCLIENT, "mount", point], check=True, env=environment)
        try:
            yield point
        finally:
            subprocess.run([GFSCLIENT, "umount", point], check=True, env=environment)


def measure(directory: Path, rounds: int, amounts: workload.Amounts) -> list[dict[str, object]]:
    """A row for each figure: the medians over ``rounds``, and the medians of the ratios in each round."""
    if os.getuid():
        return [_row("mount", reason="only root can empty the kernel's caches")]
    reason = moosefs.missing()
    figures: dict[str, dict[str, list[float]]] = {}
    units: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        (directory / "local").mkdir()
        places = {"gfs": stack.enter_context(_mounted(directory / "gfs")), "local": directory / "local"}
        if reason is None:
            places["moosefs"] = stack.enter_context(moosefs.running(directory / "moosefs"))
        for _ in range(rounds):
            for name, place in places.items():
                for figure in workload.measure(place, amounts):
                    figures.setdefault(figure.name, {}).setdefault(name, []).append(figure.value)
                    units[figure.name] = figure.unit
    return [_figure_row(name, units[name], values, reason) for name, values in figures.items()]


def _figure_row(name: str, unit: str, values: dict[str, list[float]], reason: str | None) -> dict[str, object]:
    def text(system: str) -> str:
        return f"{statistics.median(values[system]):,.0f} {unit}" if system in values else ""

    def ratio(system: str) -> float:
        return round(statistics.median(a / b for a, b in zip(values["gfs"], values[system], strict=True)), 3)

    aim = AIMS.get(name, 1.0)
    local = f"local disk {text('local')}, {ratio('local')}"
    return _row(
        name,
        value=text("gfs"),
        bare=text("moosefs"),
        ratio=ratio("moosefs") if "moosefs" in values else "",
        aim=aim,
        reason=f"{reason}; {local}" if reason else f"aim {aim:g}; {local}",
        local=text("local"),
        local_ratio=ratio("local"),
    )


def _row(figure: str, **values: object) -> dict[str, object]:
    return {"figure": figure, "value": "", "bare": "", "ratio": "", "aim": "", **values}
