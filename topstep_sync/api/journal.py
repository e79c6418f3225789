"""Intents and outcomes on disk, so that a crash between the two is not forgotten.

One JSON line each, appended with one write and synced before the order is sent. The file is created for its owner
only; it holds accounts, contracts and sizes, and no secret.

A line that a crash or a full disk has torn is skipped, and takes no other along: each one ends what may stand before
it, and itself. So between two there is an empty one.

Several processes may have to do with one tag, and none sees what the others are about to write. So a line counts only
against what whoever wrote it knew of (`Line.settles`).
"""

import logging
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from topstep_sync.api.intent import State
from topstep_sync.api.ledger import Intent
from topstep_sync.messages import PlaceOrder

log = logging.getLogger("topstep_sync.orders")


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry: where an intent stood at an instant."""

    tag: str
    state: State
    at: float
    """Seconds since 1970."""
    since: float
    """Seconds since 1970 of the first attempt."""
    lost: float = 0.0
    """Seconds since 1970 by which the reply of the last attempt had been given up, or would have been."""
    minted: bool = True
    order_id: int | None = None
    request: PlaceOrder

    def settles(self, before: "Line") -> bool:
        """Whether this later line says how the intent that stood as *before* went on."""
        if self.state is State.SENT:
            return True
        if before.state is not State.SENT:
            return self.lost >= before.lost
        if self.state is State.ABSENT and self.at < before.lost:  # and nobody has said that it was given up
            return False
        return self.lost >= before.at

    def intent(self, now: float) -> Intent:
        """The intent as a process that is gone left it; its fate is open.

        Args:
            now: seconds since 1970. The other process may have waited for a permit, and sent it just now.
        """
        entry = Intent(self.request, self.tag, self.since, minted=self.minted)
        entry.state, entry.doubtful = State.UNKNOWN, True
        entry.lost = min(self.lost, now)
        return entry


class Journal:
    """Thread-safe; several processes may append to one file on a local disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._encoder = msgspec.json.Encoder()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Closed when nobody holds the journal any more: closed earlier, its number could be another file's by the time
        # that an order in flight writes its outcome.
        weakref.finalize(self, os.close, self._file)

    def write(self, entry: Intent, now: float, *, until: float | None = None) -> None:
        """*entry* is on the disk as it stands *now*. Raises `OSError` when it is not.

        Args:
            until: it is about to be sent, and its reply will be waited for until then (seconds since 1970).
        """
        line = Line(
            tag=entry.tag,
            state=entry.state if until is None else State.SENT,
            at=now,
            since=entry.since,
            lost=entry.lost if until is None else until,
            minted=entry.minted,
            order_id=None if entry.placed is None else entry.placed.id,
            request=entry.request,
        )
        # One write of a file opened for appending: lines of several threads and processes never mix.
        data = b"\n" + self._encoder.encode(line) + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError(f"{self.path}: the disk took only a part of the line")
        os.fsync(self._file)

    def lines(self) -> Iterator[Line]:
        """Every whole line, oldest first."""
        decoder = msgspec.json.Decoder(Line)
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    if text.strip():
                        log.warning("! %s, line %d is torn and was skipped", self.path, number)

    def open_intents(self) -> list[Line]:
        """Where each intent stands whose fate is open, oldest first; one for each tag of an account."""
        return [line for line in self._standing() if line.state not in SETTLED]

    def last(self, tag: str) -> Line | None:
        """Where the intent with this tag stands."""
        return max((line for line in self._standing() if line.tag == tag), key=_weight, default=None)

    def _standing(self) -> list[Line]:
        """Of each tag of an account its order, else what may still become one, else how it ended."""
        attempts: dict[tuple[str, int], dict[float, Line]] = {}
        for line in self.lines():
            _enter(attempts.setdefault((line.tag, line.request.account_id), {}), line)
        return [max(lines.values(), key=_weight) for lines in attempts.values()]


def _enter(known: dict[float, Line], line: Line) -> None:
    """*line* is among what is *known* of its tag, by `since`, if it counts."""
    before = known.get(line.since)
    if before is None or line.state is State.ACCEPTED or (line.settles(before) and before.state is not State.ACCEPTED):
        known[line.since] = line
    if line.state is State.ABSENT:  # that is said of the tag, whoever used it
        for since, other in known.items():
            if other.state not in SETTLED and line.settles(other):
                known[since] = line


def _weight(line: Line) -> tuple[bool, bool, float]:
    return line.state is State.ACCEPTED, line.state not in SETTLED, line.lost


SETTLED: Final = frozenset({State.ACCEPTED, State.REJECTED, State.NOT_EXECUTED, State.ABSENT})
