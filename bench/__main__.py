"""``python -m bench``: all figures in one run, as a table and as JSON in bench/results/."""

import argparse
import datetime
import json
import tempfile
from pathlib import Path

from bench import data, gateway, journal, memory, metadata, mount, restart, workload
from gfsprotocol.ids import MIB

BENCHMARKS = ["memory", "restart", "metadata", "journal", "data", "gateway", "mount"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"which to run of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--mebibytes", type=int, default=2048, help="size of the file that is moved")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where the cluster's disks are; a temporary directory by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {sorted(unknown)[0]}")
    rows: list[dict[str, object]] = []
    wanted = arguments.only or BENCHMARKS
    with tempfile.TemporaryDirectory(prefix="gfs-bench-", dir=arguments.dir) as name:
        if "memory" in wanted:
            rows += memory.measure()
        if "restart" in wanted:
            (Path(name) / "restart").mkdir()
            rows += restart.measure(Path(name) / "restart")
        if "metadata" in wanted:
            (Path(name) / "metadata").mkdir()
            rows += metadata.measure(Path(name) / "metadata", arguments.rounds)
        if "journal" in wanted:
            (Path(name) / "journal").mkdir()
            rows += journal.measure(Path(name) / "journal", arguments.rounds)
        if "data" in wanted:
            (Path(name) / "data").mkdir()
            rows += data.measure(Path(name) / "data", arguments.mebibytes * MIB, arguments.rounds)
        if "gateway" in wanted:
            (Path(name) / "gateway").mkdir()
            rows += gateway.measure(Path(name) / "gateway", arguments.mebibytes * MIB, arguments.rounds)
        if "mount" in wanted:
            (Path(name) / "mount").mkdir()
            amounts = workload.Amounts(min(arguments.mebibytes, workload.Amounts().mebibytes))
            rows += mount.measure(Path(name) / "mount", arguments.rounds, amounts)
    for row in rows:
        told = row.get("reason") or (f"aim {row['aim']}" if row["aim"] else "")
        print(f"{row['figure']:<26} {row['value']:>16} {row['bare']:>14} {row['ratio']:>7}  {told}".rstrip())
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    (results / f"{stamp}.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
