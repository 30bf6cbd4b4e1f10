"""Where the chunks of one open file are, as the master said last."""

import threading
from typing import Final

from gfsclient.core import Core
from gfsprotocol.messages import Attributes, ChunkLocation, Locate, Locations

CHUNKS_PER_QUESTION: Final = 16
CHUNKS_KEPT_MAX: Final = 4096


class ChunkMap:
    """Attributes and chunk locations of a file, asked for in groups and kept. Safe for threads."""

    def __init__(self, core: Core, known: Locations) -> None:
        """``known`` is the answer with which the file was opened."""
        self.inode = known.attributes.inode
        self.chunk_bytes = known.attributes.chunk_bytes
        self._core = core
        self._lock = threading.Lock()
        self._attributes = known.attributes
        self._known: dict[int, ChunkLocation] = {}
        self._learn(known)

    @property
    def attributes(self) -> Attributes:
        return self._attributes

    @property
    def size(self) -> int:
        return self._attributes.size

    def find(self, index: int) -> ChunkLocation:
        """The location of a chunk; one that the file does not have is a hole."""
        location = self._known.get(index)
        return location if location is not None else self.refresh(index)

    def known(self, index: int) -> ChunkLocation | None:
        """The location of a chunk, if no master need be asked for it."""
        return self._known.get(index)

    def refresh(self, index: int, deadline_seconds: float | None = None, at_leader: bool = False) -> ChunkLocation:
        """Asks a master anew for this chunk and those after it; the leader if what a standby said was of no use."""
        question = Locate(b"", self.inode, index, CHUNKS_PER_QUESTION)
        answer = self._core.call(question, Locations, deadline_seconds, at_leader)
        self._learn(answer)
        # Not from what is kept: what other threads learn may have displaced it already, and a hole reads as zeros.
        found = [location for location in answer.chunks if location.index == index]
        return found[0] if found else ChunkLocation(index, 0, 0, 0, (), b"")

    def refresh_size(self) -> int:
        """The file's size now."""
        self._learn(self._core.call(Locate(b"", self.inode, self.size // self.chunk_bytes, 1), Locations))
        return self.size

    def forget(self) -> None:
        """After own writes: lengths known before are no longer true."""
        with self._lock:
            self._known.clear()

    def _learn(self, answer: Locations) -> None:
        self._core.servers.learn(answer.servers)
        with self._lock:
            if answer.attributes.size != self._attributes.size:
                self._known.clear()  # chunks that were short before may be longer now
            self._attributes = answer.attributes
            for location in answer.chunks:
                self._known.pop(location.index, None)  # what is learned last is forgotten last
                self._known[location.index] = location
            while len(self._known) > CHUNKS_KEPT_MAX:
                del self._known[next(iter(self._known))]
