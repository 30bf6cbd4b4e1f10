"""Is my data safe? One answer, and the reasons for it, from what the masters say."""

from dataclasses import dataclass
from enum import Enum

from gfscluster.probe import complaints, find_leader
from gfsprotocol.errors import DataLost, GfsError, Unreachable
from gfsprotocol.messages import Status


class Band(Enum):
    """How bad it is, with the exit code of ``gfs status``."""

    WELL = 0
    DEGRADED = 1
    UNSAFE = DataLost.exit_code
    UNKNOWN = Unreachable.exit_code


@dataclass(frozen=True)
class Health:
    """The answer: ``verdict`` in one line, ``reasons`` most serious first."""

    band: Band
    verdict: str
    reasons: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"{self.verdict}{': ' if self.reasons else '.'}{'; '.join(self.reasons)}"


def judge(answers: dict[str, Status | GfsError]) -> Health:
    """What all the masters' answers together mean for the data."""
    leader = find_leader(answers)
    status = answers[leader] if leader is not None else None
    if not isinstance(status, Status):
        return Health(Band.UNKNOWN, "Unknown, no master leads", (complaints(answers),))
    if status.missing:
        reason = f"{_count(status.missing, 'chunk has', 'chunks have')} no good copy that is known"
        if status.safe_mode:
            return Health(Band.DEGRADED, "Not known yet, the chunk servers still report", (reason,))
        return Health(Band.UNSAFE, "NO", (reason, *_weaknesses(answers, status)))
    weaknesses = _weaknesses(answers, status)
    if weaknesses:
        return Health(Band.DEGRADED, "Yes, every chunk has a good copy, but", weaknesses)
    return Health(Band.WELL, "Yes, every chunk has all its copies", ())


def _weaknesses(answers: dict[str, Status | GfsError], status: Status) -> tuple[str, ...]:
    """What is not as it should be, though nothing is lost."""
    found = []
    if status.under_replicated:
        found.append(f"{_count(status.under_replicated, 'chunk has', 'chunks have')} fewer copies than asked for")
    if status.corrupt_replicas:
        found.append(f"{_count(status.corrupt_replicas, 'copy is', 'copies are')} corrupt and not used")
    if status.brake:
        found.append(f'deletions are held back until "gfs brake release": {status.brake}')
    if status.safe_mode:
        found.append("the master waits for chunk reports (safe mode)")
    dead = [f"{server.host}:{server.port}" for server in status.servers if not server.alive]
    if dead:
        found.append(f"no sign of life from chunk server {', '.join(dead)}")
    failed = [disk.path for server in status.servers for disk in server.disks if disk.failed]
    if failed:
        found.append(f"disk out of use: {', '.join(failed)}")
    silent = [answer.message for answer in answers.values() if isinstance(answer, GfsError)]
    if silent:
        found.append(f"a master is missing: {'; '.join(silent)}")
    return tuple(found)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
