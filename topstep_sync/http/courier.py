"""The one that goes to the store of a shared budget, so that no lock is held meanwhile and nobody waits for reports."""

import logging
import threading
from collections.abc import Iterable
from typing import Final

from topstep_sync.clock import Clock
from topstep_sync.http.lane import Lane
from topstep_sync.http.shared_lane import SharedLane
from topstep_sync.http.sharing import Ask, BudgetLost, SharedBudget

LOG: Final = logging.getLogger("topstep_sync.http")

TICK: Final = 0.05
"""Seconds for which reports are gathered; nothing to a window of 30 s, and one transaction tells all of them."""

JOIN: Final = 10.0
"""Seconds that `close` gives the thread; a store answers or fails sooner."""


class Courier:
    """Exchanges with the store: for permits on the thread of who waits for one, for reports on a thread of its own.

    | attribute | written by | read by |
    |---|---|---|
    | lanes' pool, outbox, asking | whoever holds the lane's lock | the same |
    | `_thread`, `_closed` | callers, under `_lock` | callers, the thread |
    """

    def __init__(self, budget: SharedBudget, lanes: Iterable[SharedLane], clock: Clock) -> None:
        self.budget = budget
        self._lanes = tuple(lanes)
        self._clock = clock
        self._lock = threading.Lock()  # guards the start of the thread
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._lost = False

    def fetch(self, lane: Lane, *, urgent: bool) -> bool:
        """Permits are at hand if the store had any; False when there was no need to ask."""
        assert isinstance(lane, SharedLane)
        with lane.lock:
            now = lane.now()
            ask = lane.ask(now, urgent)
        if ask is None:
            return False
        self._exchange(lane, ask, now)
        self._start()
        return True

    def flush(self, *, everything: bool = False) -> None:
        """What ended has been told; *everything*: and leases at hand are given back."""
        for lane in self._lanes:
            with lane.lock:
                now = lane.now()
                ask = lane.tell(now, everything=everything)
            if ask is not None:
                self._exchange(lane, ask, now)

    def _exchange(self, lane: SharedLane, ask: Ask, asked: float) -> None:
        """*ask* is answered; or it is not, and the lane knows, whatever happened."""
        answer, why = None, "interrupted"
        try:
            answer = self.budget.exchange(lane.rules, ask)
        except BudgetLost as error:
            why = str(error)
        finally:
            with lane.lock:
                now = lane.now()
                waiter = lane.answered(ask, answer, asked, now) if answer else lane.unanswered(ask, why, asked, now)
            if waiter is not None:
                waiter.wake.set()
        self._tell_once(why if answer is None else "")

    def _tell_once(self, why: str) -> None:
        if bool(why) == self._lost:
            return
        self._lost = bool(why)
        if why:
            LOG.warning("! shared rate budget (%s) out of reach: %s", self.budget.kind, why)
        else:
            LOG.info("= shared rate budget (%s) is back", self.budget.kind)

    ########################################### the thread ###########################################

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="topstep-budget", daemon=True)
                self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        """Reports go out within two ticks of the end of their calls, until `close`."""
        while not self._ended.is_set():
            self._clock.wait(self._wanted)
            self._wanted.clear()
            while not self._clock.wait(self._ended, TICK) and any(lane.busy_here() for lane in self._lanes):
                self._flush_quietly()

    def _flush_quietly(self) -> None:
        try:
            self.flush()
        except Exception:  # a store's bug must not end the reports of all later calls
            LOG.exception("! reports to the shared rate budget (%s) failed", self.budget.kind)

    def close(self) -> None:
        """The thread has ended, and everything that could be told is told. May be called again."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._ended.set()
        self._wanted.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN)
        self.flush(everything=True)
        self.budget.close()

    def health(self) -> dict[str, object]:
        """What the store is, and whether it can be reached."""
        lost = next((lane.lost for lane in self._lanes if lane.lost), "")
        return {"kind": self.budget.kind, "ok": not lost, "why": lost}
