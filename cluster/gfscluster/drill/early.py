"""For teaching: what an answer is worth that is given before the commit.

Two throw-away clusters, alike but for the setting ``acknowledge``, go through the same kills, with commits under way.
"""

import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from gfsclient.config import load_config
from gfscluster import layout, processes, startup
from gfscluster.drill import report
from gfscluster.drill.hits import Hit, KillInCommit
from gfscluster.drill.ledger import Fault
from gfscluster.drill.report import Report
from gfscluster.drill.series import Plan, Series
from gfscluster.layout import Layout
from gfscluster.shape import CHUNKSERVER_PORT_OFFSET, Shape
from gfsmaster.config import MasterConfig
from gfsprotocol.errors import AddressInUse, DataLost
from gfsprotocol.settings import load

PORTS: Final = range(12000, 30000, CHUNKSERVER_PORT_OFFSET * 2)
READY_SECONDS: Final = 60.0
PORT_ATTEMPTS: Final = 20

EXPLANATION: Final = """
The leader acknowledges a write and dies before any other node has it. What happens to that write?

With "early", as with asynchronous replication, the answer leaves as soon as the change is in the leader's memory. The
record is on its way to the log when the leader is killed; the next leader starts from the log and has never heard of
it. The client was told "done", and it is gone: {early} of {early_calls} calls in {rounds} kills.

With "durable", the normal mode, the answer waits until the record's commit is on disk, and the next leader reads the
log to its end before it serves. What the leader took with it had not been acknowledged to anyone, and the clients ask
again with the same call number, so it is done exactly once: {durable} of {durable_calls} calls lost in {rounds} kills.
"""


def show(rounds: int, writers: int, seed: int, run: Callable[[Series, list[Hit]], Report]) -> int:
    """Runs both and explains; 0 if the normal mode has lost nothing."""
    reports = {}
    for kind in ("early", "durable"):
        click.echo(f"A throw-away cluster that acknowledges {kind}:")
        reports[kind] = _drill(kind, rounds, writers, seed, run)
    early, durable = (made.faults[Fault.LOST] for made in reports.values())
    click.echo(
        EXPLANATION.format(
            early=early,
            early_calls=reports["early"].calls,
            durable=durable,
            durable_calls=reports["durable"].calls,
            rounds=rounds,
        )
    )
    click.echo(f"{'acknowledge':<12}{'calls':>10}{'kills':>8}{'lost':>8}  other faults")
    for kind, made in reports.items():
        others = ", ".join(
            f"{name.replace('_', ' ')} {count}" for name, count in made.faults.items() if count and name != Fault.LOST
        )
        click.echo(f"{kind:<12}{made.calls:>10}{rounds:>8}{made.faults[Fault.LOST]:>8}  {others or 'none'}")
    return 0 if reports["durable"].is_clean else DataLost.exit_code


def _drill(kind: str, rounds: int, writers: int, seed: int, run: Callable[[Series, list[Hit]], Report]) -> Report:
    with tempfile.TemporaryDirectory(prefix="gfs-drill-") as directory:
        place, shape = _make_cluster(Path(directory) / kind, kind)
        try:
            if startup.start_all(place, shape, READY_SECONDS, threading.Event()) is None:
                raise KeyboardInterrupt
            config = load_config(place.client_file)
            journal = load(MasterConfig, place.config_file(shape.master_names[0]), {}).journal
            hits: list[Hit] = [KillInCommit(place, shape, 0.0, Path(journal.removeprefix("sqlite:///")))]
            # As fast as they can, so that something is always on its way to the log; names only.
            plan = Plan("kill", rounds, writers, 0.0, False, seed, "/drill", READY_SECONDS)
            click.echo(report.round_header())
            series = Series(
                plan, config, journal, shape.chunkservers, hits, lambda one: click.echo(report.round_line(one))
            )
            made = run(series, hits)
            if series.failure is not None:
                raise series.failure
            return made
        finally:
            processes.stop(place, processes.recorded(place))


def _make_cluster(directory: Path, kind: str) -> tuple[Layout, Shape]:
    place, shape = Layout(directory), _free_shape()
    layout.create(place, shape)
    for name in shape.master_names:
        file = place.config_file(name)
        layout.write_private(file, file.read_text() + f'acknowledge = "{kind}"\n')
    return place, shape


def _free_shape() -> Shape:
    """A small cluster on ports that nobody uses now. AddressInUse if none are found."""
    for attempt in range(PORT_ATTEMPTS):
        base = random.choice(PORTS)  # noqa: S311 - a port
        shape = Shape(masters=2, chunkservers=1, port_base=base, replication=1)
        try:
            startup.check_ports(shape)
        except AddressInUse:
            if attempt == PORT_ATTEMPTS - 1:
                raise
        else:
            return shape
    raise AssertionError("unreachable")
