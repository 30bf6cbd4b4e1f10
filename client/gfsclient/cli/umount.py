"""``gfsclient umount``."""

from typing import Final

import click

from gfsprotocol.errors import ConfigurationError, DeadlineExceeded

END_SECONDS: Final = 600.0


@click.command("umount")
@click.argument("mountpoint")
@click.option("--lazy", is_flag=True, help="Take it away though it is in use; programs that use it get errors.")
def command(mountpoint: str, lazy: bool) -> None:
    """Unmounts what gfsclient mount has mounted, and returns when all that was written is durable."""
    from gfsclient.mount import mountpoint as mountpoints
    from gfsclient.mount import records

    path = mountpoints.absolute(mountpoint)
    mounted = mountpoints.mounted_at(path)
    if mounted is None or mounted.kind != mountpoints.TYPE:
        raise ConfigurationError(f"{mountpoint}: no cluster is mounted there")
    if lazy:
        mountpoints.unmount_lazily(path)
        return
    mountpoints.unmount(path)
    if not records.wait_for_end(path, END_SECONDS):
        raise DeadlineExceeded(f"{mountpoint} is unmounted, but its process still writes: see {records.log_file(path)}")
