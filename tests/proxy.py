"""A TCP proxy that loses what it carries: silently, or with a reset, at a chosen moment."""

import contextlib
import enum
import select
import socket
import struct
import threading
from types import TracebackType

POLL_SECONDS = 0.01
BUFFER_BYTES = 65536


class Fate(enum.Enum):
    """What becomes of a message that a trap waits for."""

    LOST = "the connection is reset before the message reaches the server"
    UNANSWERED = "the connection is reset when the server has answered, and the answer is lost"
    HELD = "the message is held, with everything after it, until resume()"


class Proxy:
    """Carries connections from ``port`` to another port of this host. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._closing = False
        self._trap: tuple[bytes, Fate] | None = None
        self.sprung = threading.Event()
        """Set when a trap has caught its message."""
        self._generation = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Proxy":
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._flowing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def silence(self) -> None:
        """From now on nothing is carried, and no one is told."""
        self._flowing.clear()

    def resume(self) -> None:
        """Carries again, beginning with what has piled up."""
        self._flowing.set()

    def cut(self) -> None:
        """Resets all connections."""
        self._generation += 1

    def trap(self, message: bytes, fate: Fate) -> None:
        """Lies in wait for the next message of a client that contains these bytes."""
        self.sprung.clear()
        self._trap = (message, fate)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            if select.select([self._listener], [], [], POLL_SECONDS)[0]:
                self._start(self._carry, self._listener.accept()[0], self._generation)

    def _carry(self, client: socket.socket, generation: int) -> None:
        with client, contextlib.suppress(OSError):
            self._flowing.wait()
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                self._forward(client, server, generation)
                _reset_at_close(server)

    def _forward(self, client: socket.socket, server: socket.socket, generation: int) -> None:
        _reset_at_close(client)
        while not self._closing and generation == self._generation:
            self._flowing.wait(POLL_SECONDS)
            if not self._flowing.is_set():
                continue
            for source in select.select([client, server], [], [], POLL_SECONDS)[0]:
                data = source.recv(BUFFER_BYTES)
                if not data:
                    return
                fate = self._caught(data) if source is client else None
                if fate is Fate.LOST:
                    return
                if fate is Fate.HELD:
                    self._flowing.wait()
                (server if source is client else client).sendall(data)
                if fate is Fate.UNANSWERED:
                    server.recv(BUFFER_BYTES)
                    return

    def _caught(self, data: bytes) -> Fate | None:
        if self._trap is None or self._trap[0] not in data:
            return None
        fate, self._trap = self._trap[1], None
        if fate is Fate.HELD:
            self._flowing.clear()
        self.sprung.set()
        return fate


def _reset_at_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
