"""The seam of a budget that several processes or machines share, and the pure window behind it.

A process takes *leases*: a few permits at once, to be used within seconds. Everything that crosses the seam is a
count or a length of time, never an instant, so nobody's clock is compared with anybody else's.
"""

import hashlib
import logging
from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from topstep_sync.config import RateConfig
from topstep_sync.http.learning import FOREVER
from topstep_sync.http.window import Gate, Notice, Window

LOG: Final = logging.getLogger("topstep_sync.http")

DONE: Final = "done"
UNUSED: Final = "unused"
GAVE_UP: Final = "gave up"
REFUSED: Final = "refused"

USABLE: Final = 2.0
"""Seconds within which a leased permit is used or given back; less than any grace, see `SharedWindow.bury`."""

LONGEST: Final = 60.0
"""Seconds after which a call that nobody reported counts as complete: `HttpConfig.total_timeout` by default."""

ROUND: Final = 1e-6
"""Seconds by which a stamp may lie ahead without a clock having gone back."""


class BudgetLost(Exception):
    """The store of a shared budget cannot be reached, or cannot be used; the text says why."""


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

    def exchange(self, rules: Rules, ask: Ask) -> Answer:
        """What ended is counted, and as many permits as possible are leased.

        Raises:
            BudgetLost: nothing was leased, and perhaps nothing was counted.
        """
        ...

    def forget(self, rules: Rules) -> None:
        """The class is as new: no slots, no leases, nothing learned."""
        ...

    def forked(self) -> None:
        """In a child process: nothing of the parent's connections is used any more."""
        ...

    def close(self) -> None: ...


class Lease(msgspec.Struct, array_like=True):
    """Permits that a process holds."""

    number: int
    holder: str
    count: int
    ends: float
    """When what is left of it counts as complete, whatever became of it."""
    probe: bool


class Document(msgspec.Struct):
    """A window as it is stored: instants are those of the store's clock. The Lua script reads it, too."""

    limit: int
    window: float
    busy: list[float]
    ahead: list[float]
    freed: list[float]
    leases: list[Lease]
    last_lease: int
    gate: str
    why: str
    until: float
    thawed: float
    probe_age: float
    review_at: float
    learned: dict[str, float]
    most: float
    sure: bool
    span: float
    cap: int
    ceiling: int
    taken: int
    expired: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Document)

_LEARNED: Final = (
    "span", "peak", "since", "proven", "proven_at", "low", "strikes", "surveys", "misled", "taken", "foreign",
    "foreign_since",
)  # fmt: skip
_WHOLE: Final = frozenset({"strikes", "surveys", "foreign"})
_COPIED: Final = ("until", "thawed", "probe_age", "review_at", "sure", "span", "cap", "ceiling", "taken", "expired")


class SharedWindow(Window):
    """A window whose slots are leased to several holders. Pure: takes `now`; its owner keeps others out meanwhile."""

    __slots__ = ("grace", "last_lease", "leases")

    def __init__(self, rules: Rules) -> None:
        self.leases: dict[int, Lease] = {}
        self.last_lease = 0
        self.grace = rules.grace
        super().__init__(rules.limit, rules.window, margin=rules.margin, reserved=rules.reserved)

    @classmethod
    def load(cls, rules: Rules, stored: bytes | None, now: float) -> "SharedWindow":
        """The window of *rules* as it was stored; as new when nothing was.

        Raises:
            msgspec.DecodeError: *stored* is not a document.
        """
        window = cls(rules)
        if stored is not None:
            window._restore(_DECODER.decode(stored), now)
        return window

    def _restore(self, document: Document, now: float) -> None:
        self.busy.extend(document.busy)
        self.ahead.extend(document.ahead)
        self.freed.extend(document.freed)
        self.leases = {lease.number: lease for lease in document.leases}
        self.last_lease = document.last_lease
        self.gate = Gate(document.gate)
        for name in _COPIED:
            setattr(self, name, getattr(document, name))
        for name in _LEARNED:
            value = document.learned[name]
            setattr(self.learned, name, int(value) if name in _WHOLE else bool(value) if name == "misled" else value)
        if (document.limit, document.window) != (self.limit, self.learned.nominal):
            self._reconfigured()
        self._mend(now)

    def _reconfigured(self) -> None:
        """The figures of the configuration are others than those under which this was learned."""
        self.learned.forget()
        self.review_at = FOREVER
        self._settle()

    def _mend(self, now: float) -> None:
        """Instants that cannot be count from now: the machine was started anew, or the server's clock went back."""
        if self.busy and self.busy[-1] > now + ROUND:
            self.busy = deque(min(stamp, now) for stamp in self.busy)
        if self.ahead and self.ahead[-1] > now + self.grace + ROUND:
            self.ahead = [min(stamp, now + self.grace) for stamp in self.ahead]
        for lease in self.leases.values():
            lease.ends = min(lease.ends, now + USABLE + LONGEST)
        self.until = min(self.until, now + self.learned.most)
        self.thawed = min(self.thawed, now)
        self.learned.since = min(self.learned.since, now)
        self.learned.proven_at = min(self.learned.proven_at, now)
        self.learned.foreign_since = min(self.learned.foreign_since, now)

    def dump(self) -> bytes:
        """What `load` takes."""
        return _ENCODER.encode(
            Document(
                limit=self.limit, window=self.learned.nominal, busy=list(self.busy), ahead=self.ahead,
                freed=list(self.freed), most=self.learned.most, leases=list(self.leases.values()),
                last_lease=self.last_lease, gate=self.gate.value, why=self.learned.why(),
                learned={name: float(getattr(self.learned, name)) for name in _LEARNED},
                **{name: getattr(self, name) for name in _COPIED},
            )
        )  # fmt: skip

    def exchange(self, now: float, ask: Ask) -> Answer:
        """What ended is counted, and as many permits as possible are leased to the holder."""
        self.expire_leases(now)
        for ended in ask.ended:
            self._end(now, ended)
        granted, wait = self._grant(now, ask)
        probe = bool(granted) and self.gate is Gate.PROBING and self.alone
        if granted:
            self.last_lease += 1
            self.leases[self.last_lease] = Lease(self.last_lease, ask.holder, granted, now + USABLE + LONGEST, probe)
        used = self.used(now)
        return Answer(
            self.last_lease, granted, probe, wait, used, self.gate.value, self.span, self.cap, self.learned.why()
        )

    def _grant(self, now: float, ask: Ask) -> tuple[int, float]:
        granted, wait = 0, 0.0
        if not ask.needed:
            return granted, wait
        while granted < ask.needed:
            wait = self.take(now, ask.urgent)
            if wait > 0.0:
                return granted, wait
            granted += 1
            if self.gate is Gate.PROBING and self.alone:
                return granted, FOREVER
        # More than somebody waits for only while three quarters stay for the others.
        more = min(ask.want - granted, (self.ceiling - self.taken) // 4)
        if more <= 0 or not self.clear(more):
            return granted, 0.0
        self.taken += more
        return granted + more, 0.0

    def _end(self, now: float, ended: Ended) -> None:
        lease = self.leases.get(ended.lease)
        if lease is None:
            self.taken += 1  # nobody waits for it any more: its slot was counted as complete, or never was counted
        else:
            lease.count -= 1
            if not lease.count:
                del self.leases[ended.lease]
        probe = lease is not None and lease.probe
        if ended.how == DONE:
            self._complete(now - ended.age, now, probe)
        elif ended.how == GAVE_UP:
            self.abandon(now - ended.age + self.grace, now, probe)
        elif ended.how == REFUSED:
            self.refused(now, now - ended.since_grant, probe, ended.hint)
        else:
            self.refund(now, probe)

    def _complete(self, stamp: float, now: float, probe: bool) -> None:
        if self.busy and stamp < self.busy[-1]:
            insort(self.busy, stamp)
        else:
            self.busy.append(stamp)
        if probe:
            self.probed(now, Notice.ACCEPTED)

    def expire_leases(self, now: float) -> None:
        """Leases that nobody told the end of count as complete when they ended."""
        for number in [number for number, lease in self.leases.items() if lease.ends <= now]:
            self._bury(now, number, self.leases[number].ends)

    def bury(self, now: float, dead: Sequence[str]) -> None:
        """The holders *dead* are gone: what they sent last arrives within the time of grace.

        Wrong about one that lives (as in another container), this stays safe, since it uses a lease for less than that.
        """
        for number in [number for number, lease in self.leases.items() if lease.holder in dead]:
            self._bury(now, number, now + self.grace)

    def _bury(self, now: float, number: int, stamp: float) -> None:
        lease = self.leases.pop(number)
        self.ahead.extend([stamp] * lease.count)
        self.ahead.sort()
        if lease.probe:
            self.probed(now, Notice.LOST)

    def holders(self) -> set[str]:
        """Who holds leases."""
        return {lease.holder for lease in self.leases.values()}


def load(rules: Rules, stored: bytes | None, now: float) -> SharedWindow:
    """The window that a store had, or a new one; one that cannot be read is told."""
    try:
        return SharedWindow.load(rules, stored, now)
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        LOG.warning("! the stored %s budget cannot be read (%s); it begins anew", rules.name, error)
        return SharedWindow(rules)


def key_of(user_name: str | None, base_url: str) -> str:
    """The name under which a user's budget at a gateway is kept; it does not tell who the user is."""
    return hashlib.sha256(f"{user_name or ''}\n{base_url}".encode()).hexdigest()[:32]
