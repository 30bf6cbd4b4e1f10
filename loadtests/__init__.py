"""Load, by locust: what many users do at once, every payload checked. ``make load`` and ``make load-ui``."""
