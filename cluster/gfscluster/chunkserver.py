"""``gfs chunkserver``: one chunk server."""

from gfschunkserver.config import ChunkServerConfig
from gfscluster.flags import settings_command
from gfscluster.logs import log_to_stderr


def _run(config: ChunkServerConfig) -> int:
    from gfschunkserver.server import run

    log_to_stderr(config.log_level)
    return run(config)


command = settings_command(
    "chunkserver",
    ChunkServerConfig,
    _run,
    "Runs one chunk server on one or more data directories. Logs go to stderr.\n\n"
    "Every setting can stand in the configuration file, in the environment and in a flag; the later ones win.",
)
