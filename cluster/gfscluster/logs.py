"""How the single processes log: one line per event on standard error."""

import logging

from gfsprotocol.errors import ConfigurationError

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr(level: str) -> None:
    """Starts logging at ``level``; ConfigurationError if there is no such level."""
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ConfigurationError(f"setting 'log_level': '{level}' is none of DEBUG, INFO, WARNING and ERROR")
    logging.basicConfig(level=known[level.upper()], format=LINE)
