"""``python -m loadtests``: a cluster of its own under load, and locust's report as a page in loadtests/results/."""

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import cluster
from gfscluster import gateways
from gfscluster.layout import Layout, read_shape
from loadtests.shapes import SHAPES

FOLDER = Path(__file__).parent
STOP_SECONDS = 60
"""What users are given to end what they do when the time is over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Locust's exit code: not 0 if any request failed."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("users", nargs="*", help="classes of loadtests/locustfile.py; all by default")
    parser.add_argument("--users", dest="count", type=int, default=50, help="how many users, at most")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--shape", choices=SHAPES, default="failover")
    parser.add_argument("--failover", choices=("kill", "handover"), default="kill", help="what is done to the leader")
    parser.add_argument("--gateways", type=int, choices=(1, 2), default=2, help="HTTP gateways of the cluster")
    parser.add_argument("--dir", type=Path, help="where the cluster's disks are; a temporary directory by default")
    parser.add_argument("--ui", action="store_true", help="open locust's own page, and start what is asked for there")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="gfs-load-", dir=options.dir) as directory,
        cluster.running(Path(directory), gateways=options.gateways) as config,
    ):
        return _run_locust(options, config)


def _run_locust(options: argparse.Namespace, config: Path) -> int:
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    command = [sys.executable, "-m", "locust", "-f", str(FOLDER / "locustfile.py")]
    command += ["--users", str(options.count), "--spawn-rate", str(max(10, options.count // 2))]
    command += ["--run-time", f"{options.seconds}s", "--stop-timeout", str(STOP_SECONDS), "--load-shape", options.shape]
    command += ["--load-gateways", ",".join(_gateways(config.parent))]
    if options.failover == "kill":
        command += ["--load-kill", str(config.parent)]
    if options.ui:
        command += ["--web-host", "127.0.0.1"]
    else:
        command += ["--headless", "--only-summary", "--html", str(results / f"{stamp}.html")]
    # Greenlets everywhere would be in the client library's way: its threads are threads.
    environment = os.environ | {"GFS_CONFIG": str(config), "LOCUST_SKIP_MONKEY_PATCH": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    code = run([*command, *options.users], environment)
    if not options.ui:
        print(f"the report: {results / stamp}.html")
    return code


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a program to its end, which on Ctrl-C it makes itself: the terminal has told it, too. Its exit code."""
    with subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _gateways(directory: Path) -> list[str]:
    layout = Layout(directory)
    return [gateways.address(layout, name) for name in read_shape(layout).gateway_names]


if __name__ == "__main__":
    sys.exit(main())
