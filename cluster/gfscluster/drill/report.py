"""What a drill reports: for programs (JSON), and as a table for people. Pure. Times in seconds from the hit."""

from collections.abc import Sequence
from typing import Final

import msgspec

from gfscluster.drill.ledger import FAULTS
from gfscluster.drill.statistics import percentile

PERCENTILES: Final = (50, 90, 99, 100)
FIGURES: Final = {
    "first_acknowledged": "first write",
    "longest_gap": "longest gap",
    "detect": "detect",
    "elect": "elect",
    "serve": "serve",
}
"""The fields of a round that are times, and their columns' titles."""
FINDINGS_SHOWN: Final = 20


class Mark(msgspec.Struct, frozen=True):
    """An answered call on the timeline."""

    client: int
    at: float


class Round(msgspec.Struct, kw_only=True):
    """One hit. A time that was not seen is None."""

    number: int
    leader: str
    """Who was hit."""
    successor: str
    epoch: int
    """The epoch after it."""
    first_acknowledged: float | None
    longest_gap: float | None
    detect: float | None
    elect: float | None
    serve: float | None
    ended: bool
    """Whether the process that was hit is one that was ended, by the hit or by a standby."""
    calls: int
    refused: int
    unknown: int
    reader_errors: int
    faults: dict[str, int]
    findings: list[str]
    errors: list[str]
    """Of calls that failed and should not have, the first few."""
    note: str = ""


class Report(msgspec.Struct, kw_only=True):
    """A series of rounds."""

    mode: str
    means: str
    """How the leader was cut off: packet loss, or a forwarder; empty in other modes."""
    rounds_wanted: int
    rounds: list[Round]
    clients: int
    files: int
    """In the namespace when it began."""
    calls: int
    duplicated_records: int
    """Appended records that are there more than once, which GFS allows after the failure of a replica."""
    faults: dict[str, int]
    findings: list[str]
    percentiles: dict[str, dict[str, float | None]]
    seed: int
    recovered: bool
    """Whether the cluster came back after each round."""

    @property
    def is_clean(self) -> bool:
        return not any(self.faults.values())


def percentiles_of(rounds: Sequence[Round]) -> dict[str, dict[str, float | None]]:
    """p50, p90, p99 and max of each figure over the rounds."""
    result = {}
    for figure in FIGURES:
        values = [value for value in (getattr(one, figure) for one in rounds) if value is not None]
        result[figure] = {percentile_name(percent): percentile(values, percent) for percent in PERCENTILES}
    return result


def percentile_name(percent: int) -> str:
    return "max" if percent == 100 else f"p{percent}"


def no_faults() -> dict[str, int]:
    """A count of each fault."""
    return {fault.value: 0 for fault in FAULTS}


def seconds_text(value: float | None) -> str:
    """Three digits after the point, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def round_header() -> str:
    """The head of the rounds' table."""
    titles = "".join(f"{title:>13}" for title in FIGURES.values())
    return f"{'round':>5}  {'leader':<22}{titles}{'calls':>8}{'faults':>8}"


def round_line(one: Round) -> str:
    """A round in the table."""
    change = f"{one.leader} > {one.successor}"
    times = "".join(f"{seconds_text(getattr(one, figure)):>13}" for figure in FIGURES)
    line = f"{one.number:>5}  {change:<22}{times}{one.calls:>8}{sum(one.faults.values()):>8}"
    return f"{line}  {one.note}" if one.note else line


def summary_lines(report: Report) -> list[str]:
    """Percentiles, counts, and a verdict."""
    lines = ["", f"{'':>5}  {'seconds':<22}" + "".join(f"{title:>13}" for title in FIGURES.values())]
    for percent in PERCENTILES:
        name = percentile_name(percent)
        figures = "".join(f"{seconds_text(report.percentiles[figure][name]):>13}" for figure in FIGURES)
        lines.append(f"{'':>5}  {name:<22}{figures}")
    faults = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.faults.items())
    refused, unknown = (sum(getattr(one, name) for one in report.rounds) for name in ("refused", "unknown"))
    errors = sum(one.reader_errors for one in report.rounds)
    lines += [
        "",
        f"{report.calls} calls of {report.clients} clients; {refused} refused as they should be or by a fault, "
        f"{unknown} of unknown outcome, {errors} errors of the streaming reader, "
        f"{report.duplicated_records} records twice (allowed)",
        f"faults: {faults}",
    ]
    if report.mode == "pause":
        ended = sum(one.ended for one in report.rounds)
        lines.append(f"{ended} of {len(report.rounds)} stopped leaders held the log's lock and were ended by a standby")
    lines += [f"  {finding}" for finding in report.findings[:FINDINGS_SHOWN]]
    if len(report.findings) > FINDINGS_SHOWN:
        lines.append(f"  and {len(report.findings) - FINDINGS_SHOWN} more")
    if report.is_clean:
        lines.append("Nothing that was acknowledged is lost, nothing was done twice.")
    else:
        lines.append("NOT EVERYTHING IS AS IT WAS ACKNOWLEDGED.")
    return lines
