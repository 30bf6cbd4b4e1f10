"""Starts the processes of a cluster, and waits until it can be used."""

import asyncio
import errno
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Final

from gfscluster import gateways, layout, probe, processes
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsprotocol.errors import AddressInUse, ConfigurationError, GfsError, StartupError
from gfsprotocol.messages import Status

POLL_SECONDS: Final = 0.1
ASK_SECONDS: Final = 2.0
LAST_WORDS_BYTES: Final = 4096


@dataclass
class Started:
    """The running cluster."""

    children: dict[str, subprocess.Popen[bytes]]
    status: Status


def start_all(place: Layout, shape: Shape, ready_seconds: float, stop: threading.Event) -> Started | None:
    """Starts everything and waits until it is ready; None if ``stop`` was set meanwhile.

    StartupError if a process dies or the cluster is not ready in time: what was started is ended then.
    """
    for record in processes.recorded(place):
        processes.forget(place, record.name)
    deadline = time.monotonic() + ready_seconds
    children: dict[str, subprocess.Popen[bytes]] = {}
    names = [name for name in shape.names if name not in shape.gateway_names]
    try:
        if not shape.begun:
            # The log begins once, by one master; the others refuse an empty one.
            first = names.pop(0)
            children[first] = processes.start(place, first, genesis=True)
            if _wait(place, shape, children, deadline, stop, servers=0) is None:
                return None
        for name in names:
            children[name] = processes.start(place, name)
        status = _wait(place, shape, children, deadline, stop, servers=shape.chunkservers)
        if status is not None and not _start_gateways(place, shape, children, deadline, stop):
            status = None
    except BaseException:
        processes.stop(place, processes.recorded(place))
        raise
    return Started(children, status) if status is not None else None


def _start_gateways(
    place: Layout, shape: Shape, children: dict[str, subprocess.Popen[bytes]], deadline: float, stop: threading.Event
) -> bool:
    """Starts the gateways and waits until each answers; False if ``stop`` was set meanwhile."""
    for name in shape.gateway_names:
        children[name] = processes.start(place, name)
    while not stop.is_set():
        _check_children(place, children)
        answers = {name: gateways.ask(gateways.address(place, name), ASK_SECONDS) for name in shape.gateway_names}
        waiting = {name: answer for name, answer in answers.items() if answer != gateways.READY}
        if not waiting:
            return True
        if time.monotonic() > deadline:
            missing = "; ".join(f"{name}: {answer}" for name, answer in waiting.items())
            raise StartupError(
                f"not every gateway is ready in time: {missing}; logs are in {place.log_file('x').parent}"
            )
        stop.wait(POLL_SECONDS)
    return False


def check_ports(shape: Shape, only: str | None = None) -> None:
    """AddressInUse if another process listens where one of ours will."""
    for name, (host, port) in shape.addresses.items():
        if only is not None and name != only:
            continue
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise ConfigurationError(f"cannot listen on {host}:{port} for {name}: {error.strerror}") from error
                raise AddressInUse(f"port {port} on {host} is in use, but {name} needs it") from error


def last_words(place: Layout, name: str) -> str:
    """The last line of a process's log."""
    with place.log_file(name).open("rb") as log:
        log.seek(0, 2)
        log.seek(max(0, log.tell() - LAST_WORDS_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _wait(
    place: Layout,
    shape: Shape,
    children: dict[str, subprocess.Popen[bytes]],
    deadline: float,
    stop: threading.Event,
    servers: int,
) -> Status | None:
    """The leader's status once ``servers`` chunk servers are there and safe mode is over; None if ``stop`` was set."""
    key = layout.key_of(place)
    addresses = [
        f"{host}:{port}" for name, (host, port) in shape.addresses.items() if name in children and "master" in name
    ]
    missing = "no answer"
    while not stop.is_set():
        _check_children(place, children)
        answers = asyncio.run(probe.statuses(addresses, key, ASK_SECONDS))
        leader = probe.find_leader(answers)
        if leader is None:
            missing = f"no master leads: {probe.complaints(answers)}"
        else:
            answer = answers[leader]
            assert isinstance(answer, Status)
            missing = _lacking(answers, answer, servers)
            if not missing:
                return answer
        if time.monotonic() > deadline:
            raise StartupError(f"the cluster is not ready in time: {missing}; logs are in {place.log_file('x').parent}")
        stop.wait(POLL_SECONDS)
    return None


def _check_children(place: Layout, children: dict[str, subprocess.Popen[bytes]]) -> None:
    """StartupError if one of them has ended."""
    for name, child in children.items():
        if (status := child.poll()) is not None:
            raise StartupError(f"{name} ended with status {status}: {last_words(place, name)}")


def _lacking(answers: dict[str, Status | GfsError], leader: Status, servers: int) -> str:
    """What the cluster still lacks, or nothing."""
    silent = [answer.message for answer in answers.values() if isinstance(answer, GfsError)]
    if silent:
        return "; ".join(silent)
    alive = sum(server.alive for server in leader.servers)
    if alive < servers:
        return f"{alive} of {servers} chunk servers have registered"
    if servers and leader.safe_mode:
        return "the master waits for chunk reports (safe mode)"
    return ""
