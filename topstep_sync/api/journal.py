"""Intents and outcomes on disk, so that a crash between the two is not forgotten.

One JSON line each, appended with one write and synced before the order is sent. The file is created for its owner
only; it holds accounts, contracts and sizes, and no secret. A line that a crash has torn is skipped.
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
        self._ends = b""  # once a line was written in part, every later one ends what may be before it
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Closed when nobody holds the journal any more: closed earlier, its number could be another file's by the time
        # that an order in flight writes its outcome.
        weakref.finalize(self, os.close, self._file)
        self._mend()

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
        data = self._ends + self._encoder.encode(line) + b"\n"
        if os.write(self._file, data) != len(data):
            self._ends = b"\n"
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
        """The last line of each intent whose fate is open, oldest first."""
        last: dict[str, Line] = {}
        for line in self.lines():
            last[line.tag] = line
        return [line for line in last.values() if line.state not in SETTLED]

    def last(self, tag: str) -> Line | None:
        """The last line of the intent with this tag."""
        found = None
        for line in self.lines():
            if line.tag == tag:
                found = line
        return found

    def _mend(self) -> None:
        """A torn last line is ended, so that the next one begins on its own."""
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        if torn:
            os.write(self._file, b"\n")


SETTLED: Final = frozenset({State.ACCEPTED, State.REJECTED, State.NOT_EXECUTED, State.ABSENT})
