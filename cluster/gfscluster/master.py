"""``gfs master``: one master node."""

from gfscluster.flags import settings_command
from gfscluster.logs import log_to_stderr
from gfsmaster.config import MasterConfig


def _run(config: MasterConfig) -> int:
    from gfsstandby.process import run

    log_to_stderr(config.log_level)
    return run(config)


command = settings_command(
    "master",
    MasterConfig,
    _run,
    "Runs one master node: it starts as a standby and becomes active by election. Logs go to stderr.\n\n"
    "Every setting can stand in the configuration file, in the environment and in a flag; the later ones win.",
)
