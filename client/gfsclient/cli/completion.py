"""``gfsclient completion``: what a shell needs to complete our command line."""

import click
from click.shell_completion import get_completion_class

from gfsclient.cli.output import line


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Prints the completion script for a shell; commands, options and paths in the cluster are completed.

    bash: eval "$(gfsclient completion bash)"; zsh the same; fish: gfsclient completion fish | source.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that the argument allows"
    line(kind(context.find_root().command, {}, "gfsclient", "_GFSCLIENT_COMPLETE").source())
