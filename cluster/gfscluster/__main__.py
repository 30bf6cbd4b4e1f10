"""``gfs``: the operator's command. One file per subcommand, imported only when it is used."""

import importlib
import sys

import click

from gfsclient.cli.output import PIPE_CLOSED, OutputClosed, discard_output
from gfsprotocol.errors import GfsError

COMMANDS = {
    "up": "gfscluster.up",
    "down": "gfscluster.down",
    "start": "gfscluster.start",
    "status": "gfscluster.status",
    "brake": "gfscluster.brake",
    "handover": "gfscluster.handover",
    "log": "gfscluster.log",
    "drill": "gfscluster.drill.command",
    "master": "gfscluster.master",
    "chunkserver": "gfscluster.chunkserver",
    "gateway": "gfscluster.gateway",
    "token": "gfscluster.token",
}


class Commands(click.Group):
    """Finds a subcommand's module by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="gfs", prog_name="gfs")
def gfs() -> None:
    """Runs and watches a GFS cluster.

    Exit codes are listed in docs/errors.md; those of "gfs status" in docs/cli.md.
    """


def main() -> int:
    """The entry point: an error of ours is one line, an interrupt is 130, anything else is a bug with its traceback."""
    try:
        result = gfs.main(prog_name="gfs", standalone_mode=False)
    except GfsError as error:
        click.echo(f"gfs: {error.message}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OutputClosed:
        return discard_output(PIPE_CLOSED)
    except (click.Abort, KeyboardInterrupt):
        return 130
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
