"""How the single processes log: one line per event on standard error."""

import logging

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr(level: str) -> None:
    """Starts logging at a level that settings allow."""
    logging.basicConfig(level=level, format=LINE)
