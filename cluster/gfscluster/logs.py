"""How the single processes log: one line per event on standard error."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

from gfsprotocol.errors import ConfigurationError

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr(level: str) -> None:
    """Starts logging at ``level``; ConfigurationError if there is no such level."""
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ConfigurationError(f"setting 'log_level': '{level}' is none of DEBUG, INFO, WARNING and ERROR")
    logging.basicConfig(level=known[level.upper()], format=LINE)
    logging.getLogger("aiohttp.server").addFilter(_strangers_in_one_line)


def _strangers_in_one_line(record: logging.LogRecord) -> bool:
    """What is not HTTP on our port is the stranger's fault: one line, where aiohttp would show a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = f"{record.getMessage()}: {' '.join(error.message.split())}", ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True
