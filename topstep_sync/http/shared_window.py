"""The pure window behind a shared budget, as it is leased out, stored and read."""

import logging
from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from topstep_sync.http.learning import FOREVER
from topstep_sync.http.sharing import DONE, GAVE_UP, LONGEST, REFUSED, USABLE, Answer, Ask, Ended, Rules
from topstep_sync.http.window import Gate, Notice, Window

LOG: Final = logging.getLogger("topstep_sync.http")

ROUND: Final = 1e-6
"""Seconds by which a stamp may lie ahead without a clock having gone back."""

KNOWN: Final = 2 * LONGEST
"""Seconds for which a holder is remembered that asks no more: longer than any lease of its lasts."""


class Lease(msgspec.Struct, array_like=True):
    """Permits that a process holds."""

    number: int
    holder: str
    count: int
    ends: float
    """When what is left of it counts as complete, whatever became of it."""
    probe: bool


class Heard(msgspec.Struct, array_like=True):
    """The last exchange of a holder."""

    holder: str
    serial: int
    at: float


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
    heard: list[Heard] = []


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

    __slots__ = ("grace", "heard", "last_lease", "leases")

    def __init__(self, rules: Rules) -> None:
        self.leases: dict[int, Lease] = {}
        self.heard: dict[str, Heard] = {}
        self.last_lease = 0
        self.grace = rules.grace
        super().__init__(rules.limit, rules.window, margin=rules.margin, reserved=rules.reserved)

    @classmethod
    def load(cls, rules: Rules, stored: bytes | None, now: float) -> "SharedWindow":
        """The window of *rules* as it was stored; as new when nothing was.

        Raises:
            msgspec.DecodeError: *stored* is not a document.
            ValueError: it contradicts itself.
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
        self.heard = {heard.holder: heard for heard in document.heard}
        self.last_lease = document.last_lease
        self.gate = Gate(document.gate)
        for name in _COPIED:
            setattr(self, name, getattr(document, name))
        for name in _LEARNED:
            value = document.learned[name]
            setattr(self.learned, name, int(value) if name in _WHOLE else bool(value) if name == "misled" else value)
        if (document.limit, document.window) != (self.limit, self.learned.nominal):
            self._reconfigured()
        leased = sum(lease.count for lease in self.leases.values())
        if self.flying != leased:
            raise ValueError(f"{self.flying} calls are in flight, and {leased} leased")
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
        while self.freed and self.freed[-1] > now + ROUND:
            self.freed.pop()  # how long ago that was, nobody knows any more
        for lease in self.leases.values():
            lease.ends = min(lease.ends, now + USABLE + LONGEST)
        for heard in self.heard.values():
            heard.at = min(heard.at, now)
        self.until = min(self.until, now + self.learned.most)
        self.thawed = min(self.thawed, now)
        self.learned.since = min(self.learned.since, now)
        self.learned.proven_at = min(self.learned.proven_at, now)
        self.learned.foreign_since = min(self.learned.foreign_since, now)
        if self.review_at < FOREVER:
            self.review_at = min(self.review_at, now + self.learned.nominal / 50)

    def dump(self) -> bytes:
        """What `load` takes."""
        return _ENCODER.encode(
            Document(
                limit=self.limit, window=self.learned.nominal, busy=list(self.busy), ahead=self.ahead,
                freed=list(self.freed), most=self.learned.most, leases=list(self.leases.values()),
                last_lease=self.last_lease, heard=list(self.heard.values()),
                gate=self.gate.value, why=self.learned.why(),
                learned={name: float(getattr(self.learned, name)) for name in _LEARNED},
                **{name: getattr(self, name) for name in _COPIED},
            )
        )  # fmt: skip

    def exchange(self, now: float, ask: Ask) -> Answer:
        """What ended is counted, and as many permits as possible are leased to the holder."""
        self.expire_leases(now)
        heard = self.heard.get(ask.holder)
        counted = heard.serial if heard else 0
        if 0 < ask.serial <= counted:
            return self._repeated(now, ask, ask.serial == counted)
        if ask.serial:
            self._meet(now, ask)
        for ended in ask.ended:
            if not 0 < ended.first <= counted:
                self._end(now, ask.holder, ended)
        granted, wait = self._grant(now, ask)
        probe = bool(granted) and self.gate is Gate.PROBING and self.alone
        if granted:
            self.last_lease += 1
            self.leases[self.last_lease] = Lease(self.last_lease, ask.holder, granted, now + USABLE + LONGEST, probe)
        return self._answer(now, self.last_lease, granted, probe, wait)

    def _answer(self, now: float, number: int, granted: int, probe: bool, wait: float) -> Answer:
        used = self.used(now)
        return Answer(number, granted, probe, wait, used, self.gate.value, self.span, self.cap, self.learned.why())

    def _repeated(self, now: float, ask: Ask, latest: bool) -> Answer:
        """An exchange that was counted already has its answer again; one that newer ones overtook gets nothing."""
        mine = self._unknown_to(ask) if latest else []
        if not mine:
            return self._answer(now, self.last_lease, 0, False, self.wait(now, 0, ask.urgent) if ask.needed else 0.0)
        lease = mine[-1]
        return self._answer(now, lease.number, lease.count, lease.probe, 0.0)

    def _unknown_to(self, ask: Ask) -> list[Lease]:
        """Leases of the holder whose numbers it does not know."""
        return [lease for lease in self.leases.values() if lease.number > ask.last and lease.holder == ask.holder]

    def _meet(self, now: float, ask: Ask) -> None:
        """The holder is known; leases that never reached it are free again."""
        for lease in self._unknown_to(ask):
            del self.leases[lease.number]
            self.taken -= lease.count
            if lease.probe:
                self.probed(now, Notice.LOST)
        # A store that lost its memory must not give a number a second time.
        self.last_lease = max(self.last_lease, ask.last)
        for name in [name for name, heard in self.heard.items() if heard.at + KNOWN < now]:
            del self.heard[name]
        self.heard[ask.holder] = Heard(ask.holder, ask.serial, now)

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

    def _end(self, now: float, holder: str, ended: Ended) -> None:
        lease = self.leases.get(ended.lease)
        if lease is None or lease.holder != holder:
            lease = None
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
