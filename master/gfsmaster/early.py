"""What chunk servers report to a standby before its log has it (HDFS-17453 is what happens without). Pure."""

from typing import Final

EARLY_MAX: Final = 200_000

Reports = dict[int, tuple[int, int]]
"""Server number -> version and length of its replica."""


class EarlyReports:
    """Reports of chunks that the state does not have yet, kept for later: at most EARLY_MAX."""

    def __init__(self) -> None:
        self._by_chunk: dict[int, Reports] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, chunk: int, server: int, version: int, length: int) -> bool:
        """Keeps a report, the last one of each server; False if there is no room."""
        if self._count >= EARLY_MAX:
            return False
        reports = self._by_chunk.setdefault(chunk, {})
        self._count += server not in reports
        reports[server] = (version, length)
        return True

    def forget(self, chunk: int, server: int) -> None:
        """The server has the chunk no more."""
        reports = self._by_chunk.get(chunk)
        if reports is not None and reports.pop(server, None) is not None:
            self._count -= 1
            if not reports:
                del self._by_chunk[chunk]

    def take(self, last_id: int | None = None) -> list[tuple[int, Reports]]:
        """(chunk, its reports), of chunks up to this id or of all: they are not kept any more."""
        taken = [chunk for chunk in self._by_chunk if last_id is None or chunk <= last_id]
        reports = [(chunk, self._by_chunk.pop(chunk)) for chunk in taken]
        self._count -= sum(len(of_chunk) for _, of_chunk in reports)
        return reports
