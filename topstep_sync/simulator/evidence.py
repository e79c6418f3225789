"""What arrived and what was decided: the simulator's memory, for tests to question."""

from collections import deque
from typing import Any

import msgspec


class Arrival(msgspec.Struct):
    """One HTTP request as it arrived. Times are seconds of the simulation clock."""

    at: float
    """`monotonic` seconds of arrival."""
    method: str
    path: str
    window: str
    """`general`, `history` or `free`."""
    port: int
    """The client's port: which connection it came on."""
    token: str | None = None
    """Generation of the token it carried; None for none, or one that was never ours."""
    partition: str = ""
    body: bytes = b""
    status: int = 0
    """What was answered; 0 for no answer at all."""
    code: int | None = None
    """The envelope's errorCode, where the work was done."""
    order_id: int | None = None
    """The order that a call of Order/place made."""
    fault: str | None = None
    """Kind of the fault that was applied."""
    done: float | None = None

    def json(self) -> Any:
        """The body, decoded; None for an empty one."""
        return msgspec.json.decode(self.body) if self.body else None


class Evidence:
    """A bounded log of arrivals. Loop thread only."""

    def __init__(self, capacity: int = 100_000) -> None:
        self.arrivals: deque[Arrival] = deque(maxlen=capacity)

    def worst(self, window: str, length: float, *, refused: bool = True) -> int:
        """The most arrivals with a valid token within any half-open *length* seconds, refused ones included or not."""
        counted = (a.at for a in self.arrivals if a.window == window and a.partition)
        if not refused:
            counted = (a.at for a in self.arrivals if a.window == window and a.partition and a.status != 429)
        worst = 0
        recent: deque[float] = deque()
        for at in counted:
            recent.append(at)
            while at - recent[0] >= length:
                recent.popleft()
            worst = max(worst, len(recent))
        return worst
