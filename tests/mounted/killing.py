"""Kills the processes of a cluster, one after the other, while something goes on."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.harness import Cluster
from tests.mounted.test_two_mounts import has_a_standby

KILLED_EVERY_SECONDS = 5.0
QUICK = {"lease_seconds": 1.0, "server_silent_seconds": 3.0}
"""Settings of masters with which a test need not wait long."""


@contextmanager
def killing(cluster: Cluster | None, seed: int) -> Iterator[None]:
    """Kills one process after the other, each of which is back and in step before the next."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def kill_one(own: Cluster, chance: random.Random) -> None:
        name = chance.choice([record.name for record in own.records()])
        own.kill(name)
        stop.wait(chance.choice((0.0, 1.0, 4.0)))
        own.restart(name)
        own.wait_for(f"{name} is back", has_a_standby, 120)
        own.wait_for("all copies are there", has_all_copies, 240)

    def run_until_stopped(own: Cluster) -> None:
        chance = random.Random(seed)
        try:
            while not stop.wait(chance.uniform(0.0, KILLED_EVERY_SECONDS)):
                kill_one(own, chance)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    if cluster is None:
        yield
        return
    thread = threading.Thread(target=run_until_stopped, args=(cluster,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def has_all_copies(status: dict[str, object]) -> bool:
    servers = status.get("chunkservers")
    everyone = isinstance(servers, list) and all(server["alive"] for server in servers)
    return everyone and status.get("under_replicated") == 0 and status.get("missing") == 0
