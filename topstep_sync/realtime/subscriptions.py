"""What a hub is asked to send: wanted state, replayed on every new connection (CONN-001).

A *want* is a subscribing call. Several holders may want the same; it is sent once, and taken back when the last one
lets go. Per want at most one call is in flight, so that a hub that runs calls in parallel cannot swap them.
"""

import threading
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from topstep_sync.clock import Signal


class Want(NamedTuple):
    """One subscribing call, such as ``Want("SubscribeOrders", (536,))``."""

    target: str
    arguments: tuple[Any, ...] = ()

    @property
    def undo(self) -> str:
        """The call that takes it back."""
        return f"Uns{self.target[1:]}"

    def __str__(self) -> str:
        return f"{self.target}({', '.join(map(str, self.arguments))})"


class Step(NamedTuple):
    """A call to make now; report its outcome to `Subscriptions.answered`."""

    want: Want
    target: str
    undoing: bool


@dataclass
class _Entry:
    holders: set[Hashable] = field(default_factory=set)
    standing: bool = False
    in_flight: bool = False
    again: bool = False  # take it back and make it anew, to get a fresh first message
    refused: str | None = None

    @property
    def settled(self) -> bool:
        return not self.in_flight and not self.again and (self.standing or self.refused is not None)


class Subscriptions:
    """The wants of one hub. Thread-safe; its lock is never held while anything else runs.

    Anything but a signal's handler, that is. It may call whatever is here from within itself, so what is walked through
    is a copy, and what is taken out may be gone.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards the entries
        self._entries: dict[Want, _Entry] = {}
        self._watches: deque[tuple[frozenset[Want], Signal]] = deque()  # any thread appends, the owner's takes

    def add(self, wants: Iterable[Want], holder: Hashable) -> bool:
        """*holder* wants these; whether there is something to send because of it."""
        with self._lock:
            for want in wants:
                entry = self._entries.setdefault(want, _Entry({holder}))
                entry.holders.add(holder)
                entry.refused = None
            return any(self._due(entry) for entry in list(self._entries.values()))

    def remove(self, wants: Iterable[Want], holder: Hashable) -> bool:
        """*holder* wants these no more; whether there is something to send because of it."""
        with self._lock:
            for want in wants:
                if entry := self._entries.get(want):
                    entry.holders.discard(holder)
            self._forget()
            return any(self._due(entry) for entry in list(self._entries.values()))

    def renew(self, want: Want) -> bool:
        """*want* is taken back and made again, if it stands; whether it does."""
        with self._lock:
            entry = self._entries.get(want)
            if entry is None or not entry.standing or entry.in_flight:
                return False
            entry.again = True
            return True

    def fresh(self) -> None:
        """A new connection: nothing stands, everything wanted is due, what was refused included."""
        with self._lock:
            for entry in list(self._entries.values()):
                entry.standing = entry.in_flight = entry.again = False
                entry.refused = None
            self._forget()

    def lost(self) -> None:
        """The connection is gone, and with it all that stood. Takes no lock, as `release`."""
        for entry in list(self._entries.values()):
            entry.standing = entry.in_flight = entry.again = False

    def due(self) -> list[Step]:
        """The calls to make now; each counts as in flight from here on."""
        with self._lock:
            steps = []
            for want, entry in list(self._entries.items()):
                if self._due(entry):
                    undoing = entry.standing
                    entry.in_flight = True
                    steps.append(Step(want, want.undo if undoing else want.target, undoing))
            return steps

    def answered(self, step: Step, error: str | None) -> None:
        """The hub answered *step*."""
        with self._lock:
            entry = self._entries.get(step.want)
            if entry is None or not entry.in_flight:
                return
            entry.in_flight = False
            if step.undoing:
                entry.standing = entry.again = False
            else:
                entry.standing = error is None
                entry.refused = error
            self._forget()
        for _ in range(len(self._watches)):
            wanted, event = self._watches.popleft()
            if self._settled(wanted):
                event.set()
            else:
                self._watches.append((wanted, event))

    def watch(self, wants: Iterable[Want]) -> Signal:
        """An event that is set once the hub has answered every one of *wants*."""
        wanted, event = frozenset(wants), Signal()
        self._watches.append((wanted, event))  # first: an answer that comes now is not overlooked
        if self._settled(wanted):
            event.set()
        return event

    def release(self) -> None:
        """Every watch is set: there will be no answers. Takes no lock, so that nobody who holds it keeps the owner."""
        while self._watches:
            self._watches.popleft()[1].set()

    @property
    def settled(self) -> bool:
        """Whether the hub has answered everything that was asked for."""
        return self._settled(list(self._entries))

    def agreed(self, wants: Iterable[Want]) -> bool:
        """Whether somebody wants each of *wants*, and the hub has answered it on this connection."""
        with self._lock:
            entries = [self._entries.get(want) for want in wants]
            return all(entry is not None and entry.holders and entry.settled for entry in entries)

    def standing(self) -> set[Want]:
        """What the hub has agreed to send on this connection. Takes no lock, as `release`."""
        return {want for want, entry in list(self._entries.items()) if entry.standing}

    def wanted(self) -> set[Want]:
        """What somebody wants, whether or not it stands."""
        with self._lock:
            return {want for want, entry in list(self._entries.items()) if entry.holders}

    def refused(self) -> dict[Want, str]:
        """What the hub refused, and its words."""
        with self._lock:
            return {want: entry.refused for want, entry in list(self._entries.items()) if entry.refused is not None}

    def _settled(self, wants: Iterable[Want]) -> bool:
        with self._lock:
            entries = [self._entries.get(want) for want in wants]
            return all(entry is None or entry.settled for entry in entries)

    def _due(self, entry: _Entry) -> bool:
        if entry.in_flight:
            return False
        if entry.standing:
            return entry.again or not entry.holders
        return bool(entry.holders) and entry.refused is None

    def _forget(self) -> None:
        for want, entry in list(self._entries.items()):
            if not entry.holders and not entry.standing and not entry.in_flight:
                self._entries.pop(want, None)
