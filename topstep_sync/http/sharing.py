"""The seam of a budget that several processes or machines share.

A process takes *leases*: a few permits at once, to be used within seconds. Everything that crosses the seam is a
count or a length of time, never an instant, so nobody's clock is compared with anybody else's.

An exchange may fail so that nobody knows whether the store did its part: the answer was lost, or Ctrl-C came in
between. So a holder numbers its exchanges, has only one under way, and repeats its reports in the next one; the store
counts each report once, and takes back a lease whose number never arrived.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from topstep_sync.config import RateConfig

DONE: Final = "done"
UNUSED: Final = "unused"
GAVE_UP: Final = "gave up"
REFUSED: Final = "refused"

USABLE: Final = 2.0
"""Seconds within which a leased permit is used or given back; less than any grace, see `SharedWindow.bury`."""

LONGEST: Final = 60.0
"""Seconds after which a call that nobody reported counts as complete: its request came long before, or never will."""

PATIENCE: Final = 5.0
"""Seconds that an exchange may take where nobody is in a hurry."""


class BudgetLost(Exception):
    """The store of a shared budget cannot be reached, or cannot be used; the text says why."""


class BudgetBusy(BudgetLost):
    """Others used the store for all of the time that was allowed; nothing was exchanged."""


class Rules(msgspec.Struct, frozen=True):
    """What a class allows, as this process believes; a store keeps no configuration."""

    name: str
    limit: int
    window: float
    margin: float
    reserved: int
    grace: float

    @classmethod
    def of(cls, config: RateConfig, name: str) -> "Rules":
        """The rules of the class *name*."""
        if name == "history":  # no urgent call counts as history, so a reserve there would only be lost
            limit, window, reserved = config.history_limit, config.history_window, 0
        else:
            limit, window, reserved = config.general_limit, config.general_window, config.reserved
        return cls(name, limit, window, config.margin, reserved, config.grace)


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """What became of one leased permit."""

    lease: int
    """0: under no lease, but while the store was out of reach."""
    how: str
    """`DONE`, `UNUSED`, `GAVE_UP` or `REFUSED`."""
    age: float
    """Seconds since it ended; taken before the exchange begins, so the store sees it end later, never earlier."""
    since_grant: float = 0.0
    """Seconds since it was granted; for `REFUSED`."""
    hint: float | None = None
    """Retry-After in seconds; for `REFUSED`."""
    first: int = 0
    """The exchange that told it first, if this is not the first; the store may have counted it then."""


class Ask(msgspec.Struct, frozen=True):
    """What a process wants in one exchange."""

    holder: str
    """Who asks: one name per process."""
    needed: int = 0
    """Permits that somebody waits for."""
    want: int = 0
    """Permits that would be used at this rate; what is above `needed` comes only while there is plenty."""
    urgent: bool = False
    ended: Sequence[Ended] = ()
    serial: int = 0
    """Number of the exchange, from 1, ascending per holder; 0: of a holder that repeats nothing."""
    last: int = 0
    """The newest lease that the holder knows of; later ones of its own never reached it."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a process gets in one exchange."""

    lease: int
    granted: int
    probe: bool
    """The one permit goes alone; nobody else gets any before its end is told."""
    wait: float
    """Seconds until it makes sense to ask again; infinity when only somebody else's report helps."""
    used: int
    gate: str
    span: float
    cap: int
    why: str


class SharedBudget(Protocol):
    """A store of windows. Thread-safe; never called under a limiter's lock."""

    kind: str
    """"memory", "sqlite" or "redis"."""

    def exchange(self, rules: Rules, ask: Ask, patience: float = PATIENCE) -> Answer:
        """What ended is counted, and as many permits as possible are leased.

        Args:
            rules: of the class.
            ask: what is wanted, and what is told.
            patience: seconds to wait for others that use the store. A store that is out of reach may need longer to
                be known as that, up to its own timeout.

        Raises:
            BudgetBusy: the time was too short; nothing happened.
            BudgetLost: no lease is known to be had. It, and what was told, may be counted all the same.
        """
        ...

    def forget(self, rules: Rules) -> None:
        """The class is as new: no slots, no leases, nothing learned."""
        ...

    def forked(self) -> None:
        """In a child process: nothing of the parent's connections is used any more."""
        ...

    def close(self) -> None: ...


def key_of(user_name: str | None, base_url: str) -> str:
    """The name under which a user's budget at a gateway is kept; it does not tell who the user is."""
    return hashlib.sha256(f"{user_name or ''}\n{base_url}".encode()).hexdigest()[:32]
