"""``gfs up``: a whole cluster on this host, from one command."""

import fcntl
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from gfscluster import current, layout, options, processes, startup
from gfscluster import gateways as gateway_state
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsprotocol.errors import ConfigurationError, DirectoryInUse
from gfsprotocol.messages import Status

MASTERS_DEFAULT: Final = 2
CHUNKSERVERS_DEFAULT: Final = 3
PORT_BASE_DEFAULT: Final = 9400
REPLICATION_DEFAULT: Final = 3
GATEWAYS_DEFAULT: Final = 1
WATCH_SECONDS: Final = 0.5


@click.command("up")
@click.option(
    "--dir",
    "directory",
    type=options.DIRECTORY,
    default="cluster-data",
    show_default=True,
    help="Where everything is kept; made if it is not there.",
)
@click.option("--masters", type=int, help="Master nodes; all but one wait as standbys.  [default: 2]")
@click.option("--chunkservers", type=int, help="Chunk servers.  [default: 3]")
@click.option("--gateways", type=int, help="HTTP gateways.  [default: 1]")
@click.option(
    "--port-base",
    type=int,
    help="Masters listen here and up, chunk servers 100 and gateways 200 higher.  [default: 9400]",
)
@click.option("--replication", type=int, help="Copies of each chunk.  [default: 3, or as many as there are servers]")
@click.option(
    "--journal",
    envvar="GFS_JOURNAL",
    help="The operation log's database: postgresql+psycopg://user:password@host/database, empty the first time; also "
    "in $GFS_JOURNAL, which no list of processes shows.  [default: SQLite in the directory]",
)
@click.option("--detach", is_flag=True, help='Return when the cluster is ready; "gfs down" ends it.')
@click.option("--ready-seconds", type=float, default=60.0, show_default=True, help="How long it may take to be ready.")
def command(
    directory: Path,
    masters: int | None,
    chunkservers: int | None,
    gateways: int | None,
    port_base: int | None,
    replication: int | None,
    journal: str | None,
    detach: bool,
    ready_seconds: float,
) -> int:
    """Starts a cluster on this host, and stops it on Ctrl-C.

    The first time it makes the directory; later it starts what is in there, so --masters, --chunkservers, --gateways,
    --port-base, --replication and --journal are needed the first time only. A process that dies is reported and not
    started again: see "gfs start".
    """
    place = Layout(directory.absolute())
    wanted = {
        "masters": masters,
        "chunkservers": chunkservers,
        "gateways": gateways,
        "port_base": port_base,
        "replication": replication,
        "journal": journal,
    }
    shape = _shape(place, {name: value for name, value in wanted.items() if value is not None})
    stop = _stop_on_signals()
    with _only_launcher(place):
        _refuse_if_running(place)
        startup.check_ports(shape)
        if not place.exists():
            _check_journal(shape)
            layout.create(place, shape)
        children = startup.start_all(place, shape, ready_seconds, stop)
        if children is None:
            return _stopped(place)
        if not shape.begun:
            layout.mark_begun(place, replace(shape, begun=True))
        current.point_to(place)
    _announce(place, shape, children.status, detach)
    if detach:
        return 0
    return _watch(place, stop)


def _shape(place: Layout, wanted: dict[str, Any]) -> Shape:
    """What is stored, or what is wanted; ConfigurationError where they contradict."""
    if not place.exists():
        chunkservers = wanted.get("chunkservers", CHUNKSERVERS_DEFAULT)
        shape = Shape(
            masters=wanted.get("masters", MASTERS_DEFAULT),
            chunkservers=chunkservers,
            port_base=wanted.get("port_base", PORT_BASE_DEFAULT),
            replication=wanted.get("replication", min(REPLICATION_DEFAULT, chunkservers)),
            journal=wanted.get("journal", ""),
            gateways=wanted.get("gateways", GATEWAYS_DEFAULT),
        )
        shape.check()
        return shape
    shape = layout.read_shape(place)
    for name, value in wanted.items():
        stored = getattr(shape, name)
        if value != stored and name == "journal":
            # Not shown: both may have a password in them.
            raise ConfigurationError(
                f"--journal: the cluster in {place.directory} was made with another one; leave it out, or edit "
                "cluster.toml and the masters' files in config/ there"
            )
        if value != stored:
            flag = "--" + name.replace("_", "-")
            raise ConfigurationError(f"{flag} {value}: the cluster in {place.directory} was made with {stored}")
    return shape


def _check_journal(shape: Shape) -> None:
    """ConfigurationError if the database cannot become a new cluster's journal; LogFailed if it cannot be reached."""
    if not shape.journal:
        return
    from gfsmaster.oplog import OperationLog

    log = OperationLog(shape.journal, "")
    try:
        if log.holds_records():
            raise ConfigurationError("--journal: the database holds a log already; a new cluster needs an empty one")
    finally:
        log.close()


@contextmanager
def _only_launcher(place: Layout) -> Iterator[None]:
    """Keeps a second launcher out while this one looks and starts."""
    try:
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place.directory / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot use {place.directory}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(f"another gfs up is starting the cluster in {place.directory}") from error
        yield
    finally:
        os.close(descriptor)


def _refuse_if_running(place: Layout) -> None:
    running = [record for record in processes.recorded(place) if processes.is_running(record)]
    if running:
        names = ", ".join(record.name for record in running)
        raise DirectoryInUse(
            f'the cluster in {place.directory} is running ({names}): "gfs down --dir {place.directory}" stops it'
        )


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    return stop


def _announce(place: Layout, shape: Shape, status: Status, detach: bool) -> None:
    masters = [f"{address} (leader)" if address == status.leader else address for address in shape.master_addresses]
    servers = [f"{host}:{port}" for name, (host, port) in shape.addresses.items() if name in shape.chunkserver_names]
    copies = "copy" if shape.replication == 1 else "copies"
    click.echo(f"The cluster in {place.directory} is ready; it keeps {shape.replication} {copies} of each file.")
    click.echo(f"  masters        {'  '.join(masters)}")
    click.echo(f"  chunk servers  {'  '.join(servers)}")
    if shape.gateways:
        click.echo(f"  gateways       {'  '.join(gateway_state.address(place, name) for name in shape.gateway_names)}")
    click.echo(f"  clients        {place.client_file}")
    click.echo(f"  logs           {place.log_file('*')}")
    click.echo("Try" + (":" if detach else ", in another terminal:"))
    for line in ("gfsclient put README.md /readme", "gfsclient ls -l /", "gfs status"):
        click.echo(f"  {_as_typed_here(line)}")
    click.echo(f"{_as_typed_here('gfs down')} --dir {place.directory} stops it." if detach else "Ctrl-C stops it.")


def _as_typed_here(line: str) -> str:
    """The command with the path to it, unless the shell finds it without."""
    program, _, rest = line.partition(" ")
    beside = Path(sys.argv[0]).parent / program
    if shutil.which(program) is None and beside.exists():
        program = os.path.relpath(beside)
    return f"{program} {rest}"


def _watch(place: Layout, stop: threading.Event) -> int:
    """Tells of processes that die, until a signal, "gfs down", or the end of the last one."""
    dead: set[tuple[str, int]] = set()
    while not stop.wait(WATCH_SECONDS):
        records = processes.recorded(place)
        if not records:
            click.echo('The cluster was stopped by "gfs down".')
            return 0
        for record in records:
            if (record.name, record.pid) not in dead and not processes.is_running(record):
                dead.add((record.name, record.pid))
                click.echo(f"{record.name} died: {startup.last_words(place, record.name)}", err=True)
                click.echo(f"  gfs start {record.name} --dir {place.directory}  starts it again", err=True)
        if all((record.name, record.pid) in dead for record in records):
            click.echo("No process of the cluster is left.", err=True)
            current.forget(place)
            return 1
    return _stopped(place)


def _stopped(place: Layout) -> int:
    click.echo("Stopping the cluster ...")
    for record in processes.stop(place, processes.recorded(place)):
        click.echo(f"{record.name} did not stop in time and was killed", err=True)
    current.forget(place)
    return 0
