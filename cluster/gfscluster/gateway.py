"""``gfs gateway``: one HTTP gateway."""

from gfscluster.flags import settings_command
from gfscluster.logs import log_to_stderr
from gfsgateway.config import GatewayConfig


def _run(config: GatewayConfig) -> int:
    from gfsgateway.process import run

    log_to_stderr(config.log_level)
    return run(config)


command = settings_command(
    "gateway",
    GatewayConfig,
    _run,
    "Runs one HTTP gateway. It keeps no state: any number may run. Logs go to stderr.\n\n"
    "Every setting can stand in the configuration file, in the environment and in a flag; the later ones win.",
)
