"""How many users there are when. Pure."""

from typing import Final

SHAPES: Final = ("steady", "ramp", "spike", "failover")
RAMP_STEPS: Final = 10
CALM_PART: Final = 0.2
"""Of the users, those that are there before and after a spike."""


def users_at(shape: str, users: int, part: float) -> int:
    """Users when ``part`` (from 0 to 1) of the time is over; at least one.

    ``steady`` and ``failover``: all of them; ``ramp``: more in ten steps; ``spike``: all in the third fifth, few else.
    """
    if shape == "ramp":
        step = min(int(part * RAMP_STEPS), RAMP_STEPS - 1) + 1
        return max(1, users * step // RAMP_STEPS)
    if shape == "spike" and not 0.4 <= part < 0.6:
        return max(1, round(users * CALM_PART))
    return users
