"""What the machine itself can do: a bare chain of sockets and files, and a bare file over one socket.

No checksums, no HTTP, no framing, no metadata: three processes that receive from a socket into a large buffer, write
to a file, pass on, and fsync at the end; and a process that sends a file by sendfile to one that throws it away.
"""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

BUFFER_BYTES = 1 << 20
SPAWN = multiprocessing.get_context("spawn")


def listen() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    return listener


def _chain_member(ready: Connection, path: str, total: int, next_port: int) -> None:
    listener = listen()
    ready.send(listener.getsockname()[1])
    upstream, _ = listener.accept()
    downstream = socket.create_connection(("127.0.0.1", next_port)) if next_port else None
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    done = 0
    while done < total:
        count = 0
        while count < BUFFER_BYTES and done + count < total:
            received = upstream.recv_into(buffer[count:])
            if downstream is not None:
                downstream.sendall(buffer[count : count + received])
            count += received
        written = 0
        while written < count:
            written += os.write(file, buffer[written:count])
        done += count
    os.fsync(file)
    if downstream is not None:
        downstream.recv(1)
    upstream.sendall(b"x")
    os.close(file)


def _sender(ready: Connection, path: str) -> None:
    listener = listen()
    ready.send(listener.getsockname()[1])
    peer, _ = listener.accept()
    file = os.open(path, os.O_RDONLY)
    size = os.fstat(file).st_size
    done = 0
    while done < size:
        done += os.sendfile(peer.fileno(), file, done, size - done)


def _start(target: Callable[..., None], *arguments: object) -> tuple[multiprocessing.process.BaseProcess, int]:
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=target, args=(sender, *arguments))
    process.start()
    return process, receiver.recv()


def chain_seconds(directory: Path, total: int, members: int = 3) -> float:
    """Seconds to move ``total`` bytes through a chain of ``members`` processes to their disks, fsync included."""
    processes = []
    port = 0
    for number in range(members):
        process, port = _start(_chain_member, str(directory / f"bare-{number}"), total, port)
        processes.append(process)
    data = memoryview(os.urandom(BUFFER_BYTES))
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as head:
        sent = 0
        while sent < total:
            piece = min(BUFFER_BYTES, total - sent)
            head.sendall(data[:piece])
            sent += piece
        head.recv(1)
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    for number in range(members):
        (directory / f"bare-{number}").unlink()
    return seconds


def sendfile_seconds(path: Path, target: Path | None = None) -> float:
    """Seconds to move a file by sendfile over one socket pair, to nowhere or into ``target``."""
    process, port = _start(_sender, str(path))
    buffer = memoryview(bytearray(BUFFER_BYTES))
    file = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600) if target is not None else -1
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        while count := peer.recv_into(buffer):
            if file >= 0:
                os.write(file, buffer[:count])
    if file >= 0:
        os.fsync(file)
        os.close(file)
    seconds = time.perf_counter() - begun
    process.join()
    return seconds
