"""``gfs drill``: hits the leading master, round after round, and checks that nothing was lost."""

import asyncio
import secrets
import signal
from pathlib import Path
from typing import Final

import click
import msgspec

from gfsclient.cli.output import line
from gfsclient.config import ClientConfig, load_config
from gfscluster import layout, options
from gfscluster.drill import early, report
from gfscluster.drill.fill import fill
from gfscluster.drill.hits import (
    EndedSessions,
    FullDisk,
    HandOver,
    Hit,
    Kill,
    LockedJournal,
    Partition,
    Pause,
    SilentForwarder,
)
from gfscluster.drill.packets import is_possible
from gfscluster.drill.page import render
from gfscluster.drill.report import Report, Round
from gfscluster.drill.series import Plan, Series
from gfscluster.drill.watch import Masters
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsmaster.config import MasterConfig
from gfsprotocol.errors import ConfigurationError, DataLost
from gfsprotocol.settings import load

MODES: Final = ("kill", "pause", "partition", "handover", "database")
HOLD_SECONDS: Final = {"pause": 10.0, "partition": 6.0, "database": 3.0}
"""How long a blow lasts that lasts, by default."""


@click.command("drill")
@click.argument("mode", type=click.Choice(MODES), default="kill")
@click.option("--rounds", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How often to hit.")
@click.option(
    "--load",
    "writers",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Clients that write; three in four metadata, the others data.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 10_000),
    default=20.0,
    show_default=True,
    help="Calls per second and client; 0 for as many as it can make.",
)
@options.made_directory
@click.option("--hold", type=click.FloatRange(0.1, 600), help="Seconds that a pause, cut or lock lasts.  [default: 10,"
              " 6 and 3]")  # fmt: skip
@click.option("--files", type=click.IntRange(0), default=0, help="Make empty files first, until there are so many.")
@click.option(
    "--patience",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds after which a cluster that does not come back is given up.",
)
@click.option(
    "--forwarder",
    is_flag=True,
    help="partition: cut by forwarders in front of the masters, as is done where packets may not be dropped.",
)
@click.option("--metadata-only", is_flag=True, help="Clients that write data are left out.")
@click.option("--seed", type=int, help="Decides when to hit, and how large files are.  [default: a new one]")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the page there.")
@click.option(
    "--acknowledge",
    type=click.Choice(["durable", "early"]),
    default="durable",
    show_default=True,
    help="early: for teaching, on two throw-away clusters of its own, what is lost if the leader answers before it has"
    " committed.",
)
def command(
    mode: str,
    rounds: int,
    writers: int,
    pace: float,
    directory: Path,
    hold: float | None,
    files: int,
    patience: float,
    forwarder: bool,
    metadata_only: bool,
    seed: int | None,
    json_file: Path | None,
    html_file: Path | None,
    acknowledge: str,
) -> int:
    """Hits the leading master of a cluster that gfs up has started, while clients keep a ledger of every call.

    MODE is kill (SIGKILL), pause (SIGSTOP, later SIGCONT), partition (its packets are lost), handover (a planned
    change), or database (the journal is locked and its disk full, in turn; with PostgreSQL its sessions are ended).
    What was done is undone after each round, and on Ctrl-C. Then every call is checked.

    Exit code 0: nothing was lost. 27: something was. 35: the cluster did not come back.
    """
    seed = secrets.randbits(32) if seed is None else seed
    if acknowledge == "early":
        if mode != "kill":
            raise click.UsageError("--acknowledge early goes with kill only")
        return early.show(rounds, writers, seed, run_series)
    place = options.existing(directory)
    shape = layout.read_shape(place)
    config = load_config(place.client_file)
    journal = load(MasterConfig, place.config_file(shape.master_names[0]), {}).journal
    hits = _hits(mode, place, shape, config, journal, hold, patience, forwarder)
    name = f"/drill-{secrets.token_hex(4)}"
    if files:
        click.echo(f"Filling the namespace up to {files} files ...")
        asyncio.run(fill(config, f"{name}-files", files, lambda done: click.echo(f"  {done} files are made")))
    plan = Plan(mode, rounds, writers, pace, not metadata_only, seed, name, patience)
    click.echo(f"Drill {mode}: {rounds} rounds, {writers} clients, seed {seed}; its files are in {name}")
    click.echo(report.round_header())
    series = Series(plan, config, journal, shape.chunkservers, hits, _show_round)
    made = run_series(series, hits)
    _write(made, series, json_file, html_file)
    if made.rounds:
        for text in report.summary_lines(made):
            line(text)
    if series.failure is not None:
        raise series.failure
    return 0 if made.is_clean else DataLost.exit_code


def run_series(series: Series, hits: list[Hit]) -> Report:
    """Runs it; Ctrl-C and SIGTERM end it in order, and whatever happens, nothing stays stopped or cut."""

    async def main() -> Report:
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        return await series.run()

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for hit in hits:
            hit.undo()


def _hits(
    mode: str,
    place: Layout,
    shape: Shape,
    config: ClientConfig,
    journal: str,
    hold: float | None,
    patience: float,
    forwarder: bool,
) -> list[Hit]:
    if shape.masters < 2 and mode != "database":
        raise ConfigurationError("the cluster has one master only: there is no one to take over")
    seconds = HOLD_SECONDS.get(mode, 0.0) if hold is None else hold
    if mode == "kill":
        return [Kill(place, shape, seconds)]
    if mode == "pause":
        return [Pause(place, shape, seconds)]
    if mode == "partition" and not forwarder and is_possible():
        return [Partition(place, shape, seconds)]
    if mode == "partition":
        return [SilentForwarder(place, shape, seconds, Masters(config.masters, config.key_bytes), patience)]
    if mode == "handover":
        return [HandOver(place, shape, seconds, config.key_bytes)]
    if not journal.startswith("sqlite:"):
        return [EndedSessions(place, shape, 0.0, journal)]
    file = Path(journal.removeprefix("sqlite:///"))
    return [LockedJournal(place, shape, seconds, file), FullDisk(place, shape, seconds)]


def _show_round(one: Round) -> None:
    line(report.round_line(one))
    for error in one.errors:
        line(f"       {error}")


def _write(made: Report, series: Series, json_file: Path | None, html_file: Path | None) -> None:
    for file, text in (
        (json_file, msgspec.json.format(msgspec.json.encode(made)) + b"\n"),
        (html_file, render(made, series.timelines).encode()),
    ):
        if file is not None:
            try:
                file.write_bytes(text)
            except OSError as error:
                raise ConfigurationError(f"cannot write {file}: {error.strerror}") from error
