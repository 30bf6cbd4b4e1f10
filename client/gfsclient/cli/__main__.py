"""The entry point of ``gfsclient``: global options, and the subcommands, imported only when they are used."""

import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import click

from gfsclient.cli.output import (
    PIPE_CLOSED,
    OutputClosed,
    StandardOutput,
    discard_output,
    error_line,
    replace_closed_streams,
)
from gfsclient.cli.session import Session, exit_code_of, message_of
from gfsprotocol.errors import GfsError

COMMANDS: Final = (
    "put",
    "get",
    "cat",
    "head",
    "tail",
    "ls",
    "tree",
    "stat",
    "mkdir",
    "rmdir",
    "rm",
    "mv",
    "cp",
    "ln",
    "touch",
    "append",
    "truncate",
    "chmod",
    "chown",
    "setrep",
    "du",
    "df",
    "find",
    "checksum",
    "trash",
    "mount",
    "umount",
    "completion",
)
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM


class Commands(click.Group):
    """Finds the module of a subcommand by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"gfsclient.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["--help"], "max_content_width": 110})
@click.version_option(package_name="gfs", prog_name="gfsclient")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The cluster's client.toml.  [default: $GFS_CONFIG, ~/.config/gfs/client.toml, the cluster of gfs up]",
)
@click.option("--masters", metavar="HOST:PORT,...", help="The masters, instead of those in client.toml.")
@click.option("--deadline", type=float, metavar="SECONDS", help="Give up so long without progress.  [default: 60]")
@click.pass_context
def gfsclient(context: click.Context, config: Path | None, masters: str | None, deadline: float | None) -> None:
    """Works with the files of a GFS cluster.

    Paths in the cluster are absolute. Global options stand before the command. Exit codes are in docs/errors.md.
    """
    context.obj = Session(config, masters.split(",") if masters is not None else None, deadline)


def main() -> int:
    """Runs the command line. What a user got wrong is one line on stderr; a traceback is a bug."""
    terminated = False

    def on_terminate(_number: int, _frame: FrameType | None) -> None:
        # The same way out as Ctrl-C: temporary files are removed, then the status tells what it was.
        nonlocal terminated
        terminated = True
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGTERM, on_terminate)
    replace_closed_streams()
    try:
        result = gfsclient.main(prog_name="gfsclient", standalone_mode=False)
        StandardOutput().flush()
    except GfsError as error:
        error_line(message_of(error))
        return error.exit_code
    except OutputClosed:
        return discard_output(PIPE_CLOSED)
    except OSError as error:
        error_line(message_of(error))
        return discard_output(exit_code_of(error))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return discard_output(TERMINATED if terminated else INTERRUPTED)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
