"""`session.status`."""

from collections.abc import Callable
from typing import Final

from topstep_sync.clock import SYSTEM_CLOCK, Clock

PING: Final = "/api/Status/ping"


class StatusApi:
    """Whether the gateway answers at all. Counted by no rate limit.

    Args:
        get: the text of a GET of a path; `Session` gives its own.
    """

    def __init__(self, get: Callable[[str], str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._get = get
        self._clock = clock

    def ping(self) -> float:
        """Seconds a round trip took. Whatever else is wrong raises what the call raised."""
        begun = self._clock.monotonic()
        self._get(PING)
        return self._clock.monotonic() - begun
