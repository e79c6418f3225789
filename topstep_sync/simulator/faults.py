"""Faults on demand: rules that say which calls go wrong, and how."""

import itertools
import random
from typing import Final

import msgspec

REST_KINDS: Final = {
    "status": "that status instead of the work",
    "after": "the work, then that status",
    "code": "HTTP 200 with that errorCode and message instead of the work",
    "code-after": "the work, then HTTP 200 with that errorCode and message",
    "html": "a page instead of JSON, with status 200",
    "lose": "the work, then the connection is closed without an answer",
    "reset": "the connection is reset before the call is read",
    "reset-read": "the call is read, then the connection is reset without the work",
    "late": "the work so many seconds late, whether or not the client still waits",
    "slow": "the work, then the answer is held back",
    "slow-headers": "the work, then the head of the answer byte by byte, so many seconds in all",
    "drip": "the work, then the body byte by byte, so many seconds each",
    "truncate": "the work, then half of the body and the end of the connection",
}
"""Kind of a REST fault → what it does."""

HUB_KINDS: Final = {
    "refuse": "the upgrade is refused with that status",
    "unauthorized": "the upgrade is refused with 401",
    "handshake-error": "the handshake is answered with an error",
    "close": "Close with an error right after the handshake",
    "refuse-reset": "the upgrade is answered by a TCP reset",
    "refuse-fin": "the upgrade is answered by the end of the TCP connection",
    "refuse-silence": "the upgrade is never answered",
    "handshake-silence": "the upgrade is accepted, the handshake never answered",
}
"""Kind of a fault that meets a hub's upgrade → what it does."""

STREAM_KINDS: Final = {
    "duplicate": "the event is sent twice",
    "gap": "the event is never sent",
    "reorder": "the event is sent after the connection's next one",
    "delay": "the event is sent so many seconds late, what follows is not",
    "garble": "the event's record is cut in half, or replaced by the body",
    "flood": "the event is sent a thousand times",
}
"""Kind of a fault that meets a hub's event (`GatewayQuote`, `hubs/market`) → what it does."""

KINDS: Final = (REST_KINDS, HUB_KINDS, STREAM_KINDS)


class Fault(msgspec.Struct, kw_only=True):
    """One rule. Seconds of `seconds` are real ones: they are about the network, not about the market."""

    operation: str
    """End of the path it applies to, in any case (`Order/place`, `hubs/market`); `*` for every one."""
    kind: str
    times: int | None = 1
    """How often it strikes; None: until removed."""
    skip: int = 0
    """Matching calls that pass before it strikes."""
    probability: float = 1.0
    """Chance to strike at each matching call; drawn from the simulator's seed."""
    until: float | None = None
    """Seconds of simulation after which it is over."""
    status: int = 503
    seconds: float = 0.0
    retry_after: str | None = None
    body: str = ""
    error_code: int = 1
    message: str | None = None
    """The errorMessage of `code` and `code-after`."""
    number: int = 0
    """Set when it comes into force; names it in the control API."""
    struck: int = 0
    """How often it has struck."""
    expires: float | None = None

    def matches(self, path: str) -> bool:
        operation = self.operation.lower()
        if operation == "*" or path.endswith(operation):
            return True
        # The path of an event is that of its hub and the event's name.
        return self.kind in STREAM_KINDS and path.rpartition("/")[0].endswith(operation)


class Faults:
    """The rules in force, oldest first; the first that matches strikes. Loop thread only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"faults {seed}")  # noqa: S311 - chance that a test can repeat
        self._numbers = itertools.count(1)
        self.rules: list[Fault] = []

    def add(self, fault: Fault, now: float) -> None:
        """*fault* is in force.

        Raises:
            ValueError: an unknown kind, or a probability outside 0 to 1.
        """
        if not any(fault.kind in kinds for kinds in KINDS):
            known = ", ".join(kind for kinds in KINDS for kind in kinds)
            raise ValueError(f"no fault of kind {fault.kind!r}; there are {known}")
        if not 0.0 <= fault.probability <= 1.0:
            raise ValueError(f"probability is {fault.probability!r}; expected 0.0 to 1.0")
        if fault.until is not None:
            fault.expires = now + fault.until
        fault.number = next(self._numbers)
        self.rules.append(fault)

    def remove(self, fault: Fault) -> None:
        """*fault* strikes no more."""
        self.rules = [rule for rule in self.rules if rule is not fault]

    def clear(self) -> None:
        """No fault is in force."""
        self.rules = []

    def take(self, path: str, now: float) -> Fault | None:
        """The fault that strikes a call of *path* (lower case); None for none."""
        if not self.rules:
            return None
        kinds = REST_KINDS
        if path.startswith("/hubs/"):
            kinds = STREAM_KINDS if path.count("/") > 2 else HUB_KINDS
        for rule in self.rules:
            if rule.kind in kinds and rule.matches(path) and self._strikes(rule, now):
                return rule
        return None

    def _strikes(self, rule: Fault, now: float) -> bool:
        if rule.expires is not None and now >= rule.expires:
            return False
        if rule.times is not None and rule.struck >= rule.times:
            return False
        if rule.skip > 0:
            rule.skip -= 1
            return False
        if rule.probability < 1.0 and self._random.random() >= rule.probability:
            return False
        rule.struck += 1
        return True
