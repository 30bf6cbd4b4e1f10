"""``python -m tests.simulation [--seed N] [--runs M] [--faults a,b]``: runs seeds one after the other.

Prints what was broken by which seed, the end of its trace and how to run it again. Exit code 1 if any seed broke
anything.
"""

import argparse
import secrets
import sys
import time
from collections import Counter

from tests.simulation.faults import ALL
from tests.simulation.world import Report, simulate

TRACE_LINES = 60


def shown(report: Report, kinds: tuple[str, ...] = ALL) -> str:
    """A failing run, for people."""
    faults = "" if kinds == ALL else f" --faults {','.join(kinds)}"
    return "\n".join(
        [
            f"seed {report.seed} breaks an invariant after {report.seconds:.1f} virtual seconds:",
            f"  {report.violation}",
            f"the last {TRACE_LINES} lines of {len(report.trace)} of its trace (seconds, process, event):",
            *(f"  {line}" for line in report.trace[-TRACE_LINES:]),
            "run it again with",
            f"  python -m tests.simulation --seed {report.seed} --runs 1{faults} --trace",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; by default a fresh one")
    parser.add_argument("--runs", type=int, default=100, help="how many seeds, one after the other")
    parser.add_argument("--faults", help=f"only these, of {', '.join(ALL)}")
    parser.add_argument("--trace", action="store_true", help="print whole traces")
    arguments = parser.parse_args()
    kinds = tuple(arguments.faults.split(",")) if arguments.faults else ALL
    if unknown := set(kinds) - set(ALL):
        parser.error(f"no such faults: {', '.join(sorted(unknown))}")
    seed = secrets.randbelow(10**9) if arguments.seed is None else arguments.seed
    started, broken, virtual, counts = time.monotonic(), 0, 0.0, Counter[str]()
    print(f"seeds {seed} to {seed + arguments.runs - 1}", flush=True)
    for number in range(seed, seed + arguments.runs):
        report = simulate(number, kinds)
        virtual += report.seconds
        counts.update(report.counts)
        if arguments.trace:
            print("\n".join(report.trace))
            print(f"hash {report.hash}")
        if report.violation is not None:
            broken += 1
            print(shown(report, kinds), flush=True)
    seconds = time.monotonic() - started
    print(
        f"{arguments.runs} runs, {broken} of them broke an invariant; {seconds:.1f} s, {arguments.runs / seconds:.1f} "
        f"runs/s, {virtual / seconds:.0f} times real time; {counts['call']} calls, {counts['is elected']} elections, "
        f"{counts['fault']} faults: " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds)
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
